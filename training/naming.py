"""How cases are called in logs, metrics and cards.

A case's folder may be named after a patient. Numbers and cards travel, so only the public
pseudonyms of the BraTS data sets are shown there; any other case is called by its position in the
run's ``split.json``, which stays with the run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_BRATS_2021: Final = re.compile(r"BraTS2021_\d{5}")
_BRATS_GLIOMA: Final = re.compile(r"BraTS-GLI-\d{5}-\d{3}")
_PUBLIC: Final = re.compile(
    r"BraTS2021_\d{5}|BraTS-[A-Z]+-\d{5}-\d{3}|phantom-\d{4}|synthetic-\d{4,}"
)


def shown_names(names: Sequence[str]) -> tuple[str, ...]:
    """What to call cases where others may read it: public names, else ``case 3``."""
    return tuple(
        name if _PUBLIC.fullmatch(name) else f"case {number}"
        for number, name in enumerate(names, start=1)
    )


def all_brats_2021(names: Sequence[str]) -> bool:
    """Whether every case is named as in the BraTS 2021 training set."""
    return all(_BRATS_2021.fullmatch(name) for name in names)


def all_brats_glioma(names: Sequence[str]) -> bool:
    """Whether every case is named as in the adult glioma sets of BraTS 2023 and later."""
    return all(_BRATS_GLIOMA.fullmatch(name) for name in names)


def bundle_name(wanted: str) -> str:
    """`wanted` in the letters that a bundle's name may have (``Run 7`` → ``run-7``)."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", wanted.lower()).strip("-._")
    return plain[:64] or "model"
