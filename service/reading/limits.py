"""What one study may cost while it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from model_core.errors import OptionError

__all__ = ["ReadingLimits"]


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """Caps on the process that reads the four images of one study.

    Args:
        voxels: voxels of one image, read from its header before anything is inflated.
        memory_mb: MiB of address space beyond what the process starts with. Four float64 images
            take 33 bytes for each voxel of one of them, 48 where they are resampled (measured).
        cpu_seconds: processor time; the system counts in whole seconds.
        wall_seconds: time on the clock.

    Raises:
        OptionError: a limit that is not above 0, or not finite.
    """

    voxels: int = 64_000_000
    memory_mb: int = 4096
    cpu_seconds: float = 60.0
    wall_seconds: float = 120.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise OptionError(
                    field.name,
                    expected="a finite number above 0",
                    got=f"{value}",
                    way_out="Raise the limit; none can be switched off.",
                )
