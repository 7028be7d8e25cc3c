"""What the service tells about a job, and the options a job is made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from model_core.types import Contrast, LabelScheme, Tta, WindowChoice
from service.jobs.records import OPEN_STATES, Priority, State
from service.schemas import Problem


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """How a study shall be segmented; what is None is the server's or the model card's to choose.

    Args:
        model: name of a model that the server has.
        tta: test-time augmentation.
        label_scheme: numbering of the label map.
        postprocess: whether the card's corrections run.
        window: the card's window, or one over the whole brain.
        allow_fewer_passes: whether mirrored passes may be left out where memory runs out.
        preprocess: whether images are registered, resampled and stripped first.
        grid: the contrast on whose own grid the label map is wanted.
        n4: whether bias fields are corrected first.
        seg_type: how a DICOM SEG stores its voxels.
        priority: of two waiting jobs the one of higher priority begins first.
        batch: a token that jobs share, to count or cancel them together.
        cache: false wants a new run even if the server has this very result.
    """

    model: str | None = None
    tta: Tta | None = None
    label_scheme: LabelScheme | None = None
    postprocess: bool | None = None
    window: WindowChoice | None = None
    allow_fewer_passes: bool | None = None
    preprocess: Literal["auto", "none", "full"] | None = None
    grid: Contrast | None = None
    n4: bool | None = None
    seg_type: Literal["BINARY", "LABELMAP"] | None = None
    priority: Priority | None = None
    batch: str | None = None
    cache: bool | None = None

    def form(self) -> dict[str, str]:
        """The text fields of the form: those that were chosen."""
        chosen = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: _text(value) for name, value in chosen.items()}


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


class _Answer(BaseModel):
    """Frozen, and deaf to members that a later server may add."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class JobProgress(_Answer):
    """How far the running stage is: windows of the network, say; 0 of 0 before that is known."""

    stage: str | None = None
    done: int = 0
    total: int = 0


class Job(_Answer):
    """One job as it stood when the server was asked."""

    id: str
    state: State
    position: int | None = Field(default=None, description="Place in the queue; 1 is next.")
    eta_s: float | None = Field(default=None, description="Seconds until it will probably end.")
    progress: JobProgress = JobProgress()
    attempts: int = 0
    error: Problem | None = None
    model: str
    model_version: str | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)
    priority: str = "normal"
    batch: str | None = None
    cached: bool = Field(default=False, description="Answered from an earlier job's result.")
    created: AwareDatetime
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None

    @property
    def open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN_STATES

    @property
    def succeeded(self) -> bool:
        """Whether there is a label map to fetch."""
        return self.state == "succeeded"


class Batch(_Answer):
    """How the jobs of one batch stand."""

    batch: str
    counts: Mapping[str, int]
    done: bool
