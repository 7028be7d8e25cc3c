"""Registrations of these tests go without the finest level, but where that is what is tested."""

from __future__ import annotations

import pytest

from model_core.preparation import register
from model_core.preparation.register import LEVELS


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "LEVELS", LEVELS[:2])
