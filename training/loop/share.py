"""Which part of every step one of several processes does.

A step is ``accumulate`` micro-batches of ``batch`` patches, however many processes there are. Where
the processes divide ``accumulate``, whole micro-batches are dealt out: each process does what one
process would have done in turn, and nothing else changes. Otherwise every micro-batch is split by
patches; Dice is then pooled over the processes (`training.loop.losses`) and BatchNorm, on GPUs,
over them too. Patch `place` of micro-batch `i` is the same patch whoever makes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.errors import OptionError
from training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of process `rank` of `processes`."""

    rank: int = 0
    processes: int = 1
    split: bool = False
    """Every micro-batch is split by patches; else whole ones are dealt out."""

    def micro_batches(self, step: int, accumulate: int) -> range:
        """Numbers (within the run) of the micro-batches of a step that this process works on."""
        first, end = step * accumulate, (step + 1) * accumulate
        return range(first, end) if self.split else range(first + self.rank, end, self.processes)

    def places(self, batch: int) -> range:
        """Places within a micro-batch of `batch` patches that this process makes."""
        return range(self.rank, batch, self.processes) if self.split else range(batch)


def share_of(config: TrainConfig, *, rank: int, processes: int) -> Share:
    """How `processes` divide a step of `config`.

    Raises:
        OptionError: they divide neither ``accumulate`` nor every batch.
    """
    if config.accumulate % processes == 0:
        return Share(rank=rank, processes=processes)
    batches = (config.batch, *(mix.batch for mix in config.mixed_patches))
    if all(batch % processes == 0 for batch in batches):
        return Share(rank=rank, processes=processes, split=True)
    raise OptionError(
        "devices",
        expected=f"processes that divide accumulate ({config.accumulate}) or every batch "
        f"({', '.join(map(str, batches))}) evenly",
        got=f"{processes} processes",
        way_out=f"For example --set accumulate={processes}: a step then sees as many micro-batches "
        "as there are processes.",
    )
