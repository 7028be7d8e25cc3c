"""A training run as a value: what is trained, on what patches, how long, by which rule.

A `TrainConfig` holds everything that changes the weights and nothing that does not (threads,
device and folders are `training.trainer.RunOptions`). It is printed at the start of a run, saved
as ``config.json``, stored in every checkpoint and in the card of the exported bundle.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from model_core.errors import OptionError
from model_core.postprocess import parse_steps
from model_core.precision import resolve_precision
from model_core.types import CONTRASTS, Contrast, Shape3, Spacing

Heads = Literal["labels", "regions"]
NetworkName = Literal["segmamba", "segmamba-brtm", "lightm-unet"]
Arithmetic = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How often (probability per patch) and how strongly a patch is changed.

    Intensity changes are drawn anew for each contrast: scanners disagree per sequence.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    flip: float = 0.5
    """Per axis."""
    affine: float = 0.2
    rotation_degrees: float = 20.0
    scale: tuple[float, float] = (0.8, 1.25)
    intensity: float = 0.3
    """Per contrast, for each of scale, shift and gamma."""
    noise: float = 0.1
    blur: float = 0.1
    low_resolution: float = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the weights of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    recipe: str
    # what is trained
    network: NetworkName
    """A name that `model_core.networks.build_network` knows."""
    network_args: Mapping[str, Any]
    heads: Heads = "regions"
    outputs: tuple[str, ...] = ("WT", "TC", "ET")
    # how a study reaches it
    channels: tuple[Contrast, ...] = CONTRASTS
    orientation: str = "SPL"
    spacing_mm: Spacing = (1.0, 1.0, 1.0)
    normalisation: Literal["zscore-nonzero", "zscore-box"] = "zscore-nonzero"
    # what a step sees
    patch: Shape3 = (64, 64, 64)
    batch: int = 2
    accumulate: int = 1
    """Micro-batches whose gradients are averaged into one step."""
    foreground_share: float = 2 / 3
    """Share of patches placed on a voxel of a random label that the case has."""
    augmentation: Augmentation = Augmentation()
    phantoms: int = 0
    """Generated phantom cases (seeds 1, 2, …) that join the training set."""
    phantom_weight: float = 0.25
    """How often one phantom is drawn, relative to one real case."""
    # how long, and by which rule
    steps: int = 3000
    max_minutes: float | None = None
    """Time budget; the run ends and its learning rate has decayed when either limit is reached."""
    learning_rate: float = 1e-3
    final_lr_fraction: float = 0.01
    warmup_steps: int = 50
    weight_decay: float = 1e-5
    clip_norm: float = 5.0
    ema_decay: float = 0.995
    seed: int = 0
    # how the arithmetic is done
    precision: Arithmetic = "float32"
    """Of the convolutions; weights, optimiser, norms' statistics, Mamba and loss stay float32.
    ``auto`` is what is fast on the machine that starts the run: a run keeps it when it moves."""
    channels_last: bool = True
    # how it is judged
    window: Shape3 | None = None
    """Sliding window of validation and of the exported model; ``None``: the patch."""
    overlap: float = 0.5
    """Window overlap of the exported model and of the final evaluation."""
    postprocess: tuple[Mapping[str, Any], ...] = ()
    """Corrections named in the exported card, e.g. ``{"name": …, "params": {…}}``; they follow the
    final evaluation too, not the validations on the way."""
    validation_overlap: float = 0.25
    """Window overlap of the validations on the way (cheaper)."""
    validate_minutes: float = 20.0
    validate_steps: int | None = None
    """Validate every so many steps as well."""
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; nothing is changed."""
        for name in ("batch", "accumulate", "steps"):
            _require(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        for name in ("foreground_share", "ema_decay", "final_lr_fraction"):
            _require(name, 0 <= getattr(self, name) <= 1, "0 to 1", getattr(self, name))
        for name in ("overlap", "validation_overlap"):
            _require(name, 0 <= getattr(self, name) < 1, "0 to below 1", getattr(self, name))
        for name in ("learning_rate", "clip_norm"):
            _require(name, getattr(self, name) > 0, "a positive number", getattr(self, name))
        for name in ("max_minutes", "validate_steps"):
            limit = getattr(self, name)
            _require(name, limit is None or limit > 0, "a positive number or null", limit)
        parse_steps(self.postprocess)
        _require("patch", min(self.patch) >= 8, "at least 8 voxels per axis", self.patch)
        _require(
            "outputs", self.outputs == _OUTPUTS[self.heads], _OUTPUTS[self.heads], self.outputs
        )

    @property
    def sliding_window(self) -> Shape3:
        """Window (voxels) that validation and the exported model slide over a study."""
        return self.window or self.patch

    def settled(self, device: str) -> TrainConfig:
        """The same config with ``auto`` replaced by what it means on `device`, here and now."""
        return dataclasses.replace(self, precision=resolve_precision(device, self.precision))

    def to_json(self) -> dict[str, Any]:
        """The config in JSON's own types; `from_json` gives an equal config back."""
        values: dict[str, Any] = json.loads(_ADAPTER.dump_json(self))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Inverse of `to_json`; unknown names and wrong types raise `OptionError`."""
        try:
            config = _ADAPTER.validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            raise OptionError(
                ".".join(str(part) for part in first["loc"]) or "config",
                expected=f"a training setting ({first['msg']})",
                got=repr(first["input"]),
                way_out="The fields of training.config.TrainConfig list every setting.",
            ) from error
        return dataclasses.replace(config, network_args=_with_tuples(config.network_args))

    def with_settings(self, settings: Mapping[str, Any]) -> TrainConfig:
        """A copy with some settings replaced, checked like `from_json`.

        Names may be dotted: ``network_args.depths``, ``augmentation.flip``.
        """
        values = self.to_json()
        for name, value in settings.items():
            *parents, leaf = name.split(".")
            inner = values
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[leaf] = value
        return type(self).from_json(values)


_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "regions": ("WT", "TC", "ET"),
    "labels": ("background", "NCR", "ED", "ET"),
}
"""Output channels per kind of head, in the order in which `training.losses` builds its targets."""

_ADAPTER = TypeAdapter(TrainConfig)


def _with_tuples(value: Any) -> Any:
    """JSON knows lists only; constructors of networks are written with tuples."""
    if isinstance(value, Mapping):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_with_tuples(inner) for inner in value)
    return value


def _require(name: str, holds: bool, expected: object, got: object) -> None:
    if not holds:
        raise OptionError(
            name,
            expected=str(expected),
            got=repr(got),
            way_out="Change the recipe or pass --set NAME=VALUE.",
        )
