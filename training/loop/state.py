"""How far a run is: what decides when it validates, saves and ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_KEPT = ("best_score", "validated_at", "validated_step", "waited", "scores")


@dataclass(kw_only=True)
class State:
    """Progress; seconds count the running time of all parts of the run together."""

    step: int = 0
    earlier_seconds: float = 0.0
    best_score: float = -1.0
    scores: list[tuple[int, float]] = field(default_factory=list)
    """(step, score) of every validation."""
    waited: int = 0
    """Validations since the best one."""
    saved_at: float = 0.0
    validated_at: float = 0.0
    validated_step: int = -1
    now: float = 0.0
    """`elapsed` when all processes last agreed on it; what is due is decided by this."""
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds of running so far."""
        return self.earlier_seconds + time.monotonic() - self.started

    def judged(self, score: float) -> bool:
        """Note a validation's score at this step; whether it is the best yet."""
        self.scores.append((self.step, score))
        self.validated_step, self.validated_at = self.step, self.elapsed
        better = score > self.best_score
        self.best_score = max(score, self.best_score)
        self.waited = 0 if better else self.waited + 1
        return better

    def to_content(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "step": self.step,
            "elapsed": self.elapsed,
            **{name: getattr(self, name) for name in _KEPT},
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> State:
        """Inverse of `to_content`; the clock goes on from there."""
        kept = {name: content[name] for name in _KEPT if name in content}
        seconds = content["elapsed"]
        return cls(step=content["step"], earlier_seconds=seconds, saved_at=seconds, **kept)
