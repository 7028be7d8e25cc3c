from __future__ import annotations

from typing import Any

import pytest

from model_core.errors import OptionError
from model_core.preparation.options import PrepareOptions


def test_what_is_left_out_is_automatic_and_onto_t1ce() -> None:
    options = PrepareOptions()
    assert (options.mode, options.onto, options.n4, options.skull_strip) == (
        "auto", "t1ce", False, "auto",
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "maybe"}, {"onto": "pd"}, {"skull_strip": "axe"}, {"mode": "none", "n4": True}],
)
def test_an_unknown_choice_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=list(wrong)[-1]):
        PrepareOptions(**wrong)
