"""How much memory a segmentation takes at its peak, told before it starts.

The peak comes inside the network, at full resolution, where a handful of *maps* (window voxels ×
features of the first stage) are alive at once: a skip connection, the image decoded so far, a
convolution's input, output and work space. Their bytes, per family, were measured as the resident
memory of a process at the peak of one forward pass on a CPU (docs/concepts/windows.md has the
table), and rounded up. Everything else is counted: weights, study, image, sums.

Pure numbers: bytes and voxels, no tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Final

from model_core.errors import MemoryLimitError, OptionError
from model_core.inference.windows import WindowPlan
from model_core.types import Shape3

MIB: Final = 2**20
BASE_BYTES: Final = 420 * MIB
"""Python, PyTorch and what its first convolution loads and keeps; measured 290 to 420 MiB."""
WEIGHT_BYTES: Final = 6
"""For each weight: itself, and half as much for copies in bfloat16 or in a convolution's order."""
FEATURE_BYTES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {"segmamba": (52, 30), "segmamba-brtm": (48, 20), "lightm-unet": (52, 52)}
)
"""Bytes at the peak for each window voxel and feature, by network family: in float32 and in
bfloat16. LightM-UNet's are those of its Mamba blocks at full resolution, which stay float32."""
_FLOAT: Final = 4
_STUDY_CONTRASTS: Final = 4


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """What the peak depends on in a network.

    Attributes:
        family: a key of `FEATURE_BYTES`; another one counts as the largest there.
        width: features at full resolution.
        parameters: how many weights.
        channels: contrasts in.
        outputs: scores out.
        half: whether the convolutions run in bfloat16.
    """

    family: str
    width: int
    parameters: int
    channels: int
    outputs: int
    half: bool

    def weights_bytes(self) -> int:
        """The weights and what is copied of them."""
        return self.parameters * WEIGHT_BYTES

    def window_bytes(self, plan: WindowPlan) -> int:
        """What one batch of windows takes inside the network."""
        per_feature = FEATURE_BYTES.get(self.family, max(FEATURE_BYTES.values()))[self.half]
        # the window itself, and its scores
        ends = (self.channels + self.outputs) * _FLOAT
        return round(prod(plan.window) * plan.batch * (per_feature * self.width + ends))


@dataclass(frozen=True, kw_only=True)
class StudySize:
    """What the peak depends on in a study.

    Attributes:
        native: voxels of the study's grid.
        box: shape of the brain box at the study's spacing.
        image: shape of the brain box at the model's spacing, which the windows walk.
    """

    native: Shape3
    box: Shape3
    image: Shape3

    def study_bytes(self) -> int:
        """The contrasts as they were read, and a label map on their grid."""
        return prod(self.native) * (_STUDY_CONTRASTS * _FLOAT + 1)


def peak_bytes(network: NetworkSize, study: StudySize, plan: WindowPlan) -> int:
    """The resident memory of a process that segments one study, at its peak."""
    padded = tuple(max(pair) for pair in zip(study.image, plan.window, strict=True))
    image = prod(study.image) * (network.channels * _FLOAT + 1)
    if padded != study.image:
        image += prod(padded) * network.channels * _FLOAT
    if study.image == study.box:  # rows are decoded as soon as they are finished
        rows = min(padded[0], plan.window[0])
        sums = network.outputs * rows * prod(padded[1:]) * _FLOAT + prod(study.box)
    else:  # all scores and the total of their weights
        sums = (network.outputs + 1) * prod(padded) * _FLOAT
    fixed = BASE_BYTES + network.weights_bytes() + study.study_bytes()
    return fixed + image + sums + network.window_bytes(plan)


def limit_bytes(memory_limit_mb: int | None, granted: int) -> int:
    """The limit in bytes: the caller's, or what the operating system grants.

    Raises:
        OptionError: the limit is not a positive number of MiB.
    """
    if memory_limit_mb is None:
        return granted
    if isinstance(memory_limit_mb, bool) or memory_limit_mb < 1:
        raise OptionError(
            "memory_limit_mb",
            expected="a positive number of MiB, or None for what the system grants",
            got=repr(memory_limit_mb),
            way_out="Leave it out, or give the memory that this process may hold.",
        )
    return memory_limit_mb * MIB


def too_large(needed: int, limit: int, half: int | None) -> MemoryLimitError:
    """The error for a run that cannot keep the limit.

    Args:
        needed: bytes that it would take.
        limit: bytes allowed.
        half: bytes that it would take in bfloat16; None if that is what it runs in.
    """
    ways = ["Raise the limit", "take a model with fewer features or a smaller window"]
    if half is not None:
        fits = "which fits" if half <= limit else "which is still too much"
        ways.insert(1, f"run in bfloat16 (about {_mib(half)} MiB, {fits})")
    return MemoryLimitError(
        "memory_limit_mb",
        expected=f"at least {_mib(needed)} MiB for this model and this study",
        got=f"a limit of {limit // MIB} MiB",
        way_out=f"{', '.join(ways[:-1])}, or {ways[-1]}.",
    )


def _mib(count: int) -> int:
    return -(-count // MIB)
