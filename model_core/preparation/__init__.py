"""Preparation: from scans as they come from the scanner to what a network may look at, and back.

Rigid co-registration, a 1 mm grid, skull stripping, optionally bias field correction; then the
labels back onto the grid of whichever scan was named.
"""

from model_core.preparation.needs import Needs, needs
from model_core.preparation.options import PREPARE_MODES, SKULL_STRIPPERS, PrepareOptions
from model_core.preparation.prepare import prepare_study
from model_core.preparation.prepared import PreparedStudy, Step

__all__ = [
    "PREPARE_MODES",
    "SKULL_STRIPPERS",
    "Needs",
    "PrepareOptions",
    "PreparedStudy",
    "Step",
    "needs",
    "prepare_study",
]
