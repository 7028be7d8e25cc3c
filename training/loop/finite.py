"""A loss that is not finite stops a run before the optimiser moves, and names the cases behind it.

With ``float16`` an overflowing gradient alone is no such end: the scaler skips the step and scales
less in the next one; only when that does not help does the run stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from model_core.errors import NumericalError
from training.loop.processes import gathered
from training.loop.sampler import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MOST_SKIPPED: Final = 20
"""Steps in a row that the scaler may skip: it halves its scale each time, from 65 536."""


class FiniteGuard:
    """Watches the steps of a run.

    Args:
        fabric: the processes that share each step.
        names: of the training cases, as they may be shown (`training.naming.shown_names`).
        scales: whether the loss is scaled (``float16``).
    """

    def __init__(self, fabric: Fabric, names: Sequence[str], *, scales: bool) -> None:
        self.fabric, self.names, self.scales = fabric, names, scales
        self._skipped = 0

    def check(
        self,
        step: int,
        loss: float,
        norm: float,
        *,
        losses: Sequence[float],
        micro_batches: Sequence[Batch],
    ) -> None:
        """Pass a step, or stop the run.

        Args:
            step: its number, from 0.
            loss: of the step, over all processes.
            norm: of its gradient.
            losses: of this process's `micro_batches`.
            micro_batches: which tell their cases.

        Raises:
            NumericalError: loss or gradient is not finite.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self._skipped = 0
            return
        if math.isfinite(loss) and self.scales and self._skipped < _MOST_SKIPPED:
            self._skipped += 1
            return
        lower = "bfloat16 or float32" if self.scales else "float32"
        raise NumericalError(
            f"Training stopped at step {step}: loss {loss}, gradient norm {norm}, from patches of "
            f"{self._culprits(losses, micro_batches)}. The weights were not touched by this step. "
            f"Look at these cases; if they are sound, lower learning_rate or use "
            f"precision={lower}, and continue with --resume."
        )

    def _culprits(self, losses: Sequence[float], micro_batches: Sequence[Batch]) -> str:
        """Cases of the micro-batches whose loss is not finite; where each is finite, of all."""
        bad = [
            batch
            for loss, batch in zip(losses, micro_batches, strict=True)
            if not math.isfinite(loss)
        ]
        blamed = self._cases(bad) or self._cases(micro_batches)
        return ", ".join(self.names[case] for case in blamed)

    def _cases(self, batches: Sequence[Batch]) -> list[int]:
        """Of all processes."""
        mine = {int(case) for batch in batches for case in batch.cases}
        return sorted(set().union(*gathered(self.fabric, mine)))
