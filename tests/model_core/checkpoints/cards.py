"""The smallest network that makes a bundle, and a complete card for it."""

from __future__ import annotations

from typing import Any

NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 4,
    "out_channels": 4,
    "init_filters": 8,
    "blocks_down": [1, 1],
    "blocks_up": [1],
}


def card_fields() -> dict[str, Any]:
    """Every field of a card but the record of its weights."""
    return {
        "format_version": 1,
        "name": "tiny",
        "version": "1",
        "family": "lightm-unet",
        "network": NETWORK,
        "channels": ["t1", "t1ce", "t2", "flair"],
        "heads": "labels",
        "outputs": ["background", "NCR", "ED", "ET"],
        "label_scheme": "brats2021",
        "orientation": "SPL",
        "spacing_mm": [1.0, 1.0, 1.0],
        "normalisation": "zscore-nonzero",
        "window": [32, 32, 32],
        "overlap": 0.5,
        "mirror_axes": [0, 1, 2],
        "tta": "none",
        "postprocess": [{"name": "relabel_small_et", "params": {"min_mm3": 50}}],
        "training": {"data": "noise", "code_version": "0", "recipe": "none"},
        "metrics": {"WT": 0.5},
        "licence": "MIT",
        "intended_use": "tests",
        "limitations": "knows nothing",
        "citation": "none",
    }
