"""``eval "$(python -m training.nnunet)"``: tells nnU-Net where our trainers are."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping

from training.nnunet import TRAINERS_FOLDER

VARIABLE = "nnUNet_extTrainer"


def export_line(environment: Mapping[str, str]) -> str:
    """The shell line that adds our folder to those that nnU-Net searches for trainers already."""
    known = [part for part in environment.get(VARIABLE, "").split(os.pathsep) if part]
    ours = str(TRAINERS_FOLDER)
    folders = known if ours in known else [*known, ours]
    return f"export {VARIABLE}={shlex.quote(os.pathsep.join(folders))}"


if __name__ == "__main__":
    sys.stdout.write(export_line(os.environ) + "\n")
