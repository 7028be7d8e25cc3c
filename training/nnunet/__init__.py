"""The bridge to nnU-Net v2: our networks as its trainers.

`trainers/` is the folder that nnU-Net's environment variable ``nnUNet_extTrainer`` shall name, and
the only place that imports nnU-Net; ``python -m training.nnunet`` prints the line to say so. The
way back, a trained results folder as a model bundle, is `model_core.checkpoints.nnunet`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

TRAINERS_FOLDER: Final = Path(__file__).parent / "trainers"
"""What ``nnUNet_extTrainer`` has to name."""
