"""Faults of a run that may pass by themselves, so that the same command is worth another try."""

from __future__ import annotations

from typing import Final

from model_core.errors import BackendError, NumericalError, OptionError


class NotNowError(OptionError):
    """What is asked for is not to be had now and may be later: a device, a run in other hands."""


PASSING: Final = (OSError, BackendError, NumericalError, NotNowError)
"""A disk that is full or away, a kernel that does not run, a loss that is not finite, the above."""
