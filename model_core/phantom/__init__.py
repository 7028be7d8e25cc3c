"""Digital phantoms: generated studies whose truth is known to the voxel."""

from __future__ import annotations

from model_core.phantom.frame import FULL_SHAPE
from model_core.phantom.phantom import Phantom, brats_affine, make_phantom, write_phantom

__all__ = ["FULL_SHAPE", "Phantom", "brats_affine", "make_phantom", "write_phantom"]
