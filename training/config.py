"""A training run as a value: what is trained, on what patches, how long, by which rule.

A `TrainConfig` holds everything that changes the weights and nothing that does not (threads,
device and folders are `training.loop.options.RunOptions`). It is printed at the start of a run,
saved as ``config.json``, stored in every checkpoint and in the card of the exported bundle.
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
from model_core.types import Shape3, Spacing
from training.region_rules import rules_of
from training.task import BRATS, Task

NetworkName = Literal["segmamba", "segmamba-brtm", "lightm-unet"]
Arithmetic = Literal["auto", "float32", "bfloat16", "float16"]
Optimiser = Literal["adamw", "adam", "sgd"]
Decay = Literal["matrices", "all"]
Schedule = Literal["cosine", "poly"]
Loss = Literal["dice-ce", "ce"]
Normalisation = Literal["zscore-nonzero", "zscore-brain", "zscore-box", "ct", "none"]
"""``zscore-nonzero``: mean and sd of the voxels ≠ 0 of each channel. ``zscore-brain``: of the
voxels inside the filled union of all channels' non-zeros, as nnU-Net (``use_mask_for_norm``).
``zscore-box``: of the whole cropped box. ``ct``: clipped and scaled by `Intensity`. ``none``."""


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Of one channel's foreground voxels over a data set (nnU-Net's CT normalisation)."""

    mean: float
    sd: float
    low: float
    """0.5th percentile."""
    high: float
    """99.5th percentile."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How often (probability per patch) and how strongly a patch is changed.

    Intensity changes are drawn anew for each contrast: scanners disagree per sequence. The
    defaults suit nine cases; `nnunet` gives those of nnU-Net.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    flip: float = 0.5
    """Per axis."""
    affine: float = 0.2
    rotation_degrees: float = 20.0
    scale: tuple[float, float] = (0.8, 1.25)
    intensity: float = 0.3
    """Per contrast, for each of scale, shift and gamma."""
    contrast: float = 0.0
    """Per contrast: values spread or drawn together about their mean (0.75 to 1.25)."""
    inverted_gamma: float = 0.0
    """Per contrast: gamma of the negative image."""
    noise: float = 0.1
    blur: float = 0.1
    low_resolution: float = 0.1
    drop_channel: float = 0.0
    """Per patch: one contrast is set to its background, as if it had not been acquired."""

    @classmethod
    def nnunet(cls) -> Augmentation:
        """Probabilities and ranges of nnU-Net v2's default trainer (Isensee et al. 2021)."""
        return cls(
            affine=0.2, rotation_degrees=30.0, scale=(0.7, 1.4), intensity=0.15, contrast=0.15,
            inverted_gamma=0.1, noise=0.1, blur=0.2, low_resolution=0.25,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PatchMix:
    """Patches of another size that take the place of some micro-batches."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    patch: Shape3
    batch: int
    share: float
    """Probability that a micro-batch is of this kind; the shares of all kinds add up to below 1."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the weights of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    recipe: str
    # what is trained
    network: NetworkName
    """A name that `model_core.networks.build_network` knows."""
    network_args: Mapping[str, Any]
    """Its constructor's arguments; channels in and out follow the task."""
    task: Task = BRATS
    deep_supervision: bool = False
    """Judge coarser decoder stages too, through heads that exist during training only."""
    initial: str | None = None
    """Fingerprint of the weights the run began from (``--from``); ``None``: fresh ones."""
    # how a study reaches it
    orientation: str = "SPL"
    spacing_mm: Spacing | None = (1.0, 1.0, 1.0)
    """Along the oriented axes; ``None``: every image's own (pictures without a physical size)."""
    normalisation: Normalisation = "zscore-nonzero"
    intensities: tuple[Intensity, ...] | None = None
    """Per channel, for ``ct``: what the data set's foreground holds."""
    # what a step sees
    patch: Shape3 = (64, 64, 64)
    batch: int = 2
    accumulate: int = 1
    """Micro-batches whose gradients are averaged into one step."""
    mixed_patches: tuple[PatchMix, ...] = ()
    """Other sizes that are mixed in, e.g. one whole-brain patch in ten."""
    foreground_share: float = 2 / 3
    """Share of patches placed on a voxel of a random label that the case has."""
    lacking_weight: float = 1.0
    """How often a real case is drawn that lacks one of the labels, relative to one that has all:
    below 1 where such cases are more frequent in the training set than among patients."""
    augmentation: Augmentation = Augmentation()
    phantoms: int = 0
    """Generated phantom cases (seeds 1, 2, …) that join the training set (BraTS tasks only)."""
    phantom_weight: float = 0.25
    """How often one phantom is drawn, relative to one real case."""
    synthetic: int = 0
    """Synthetic studies (seeds 1, 2, …) that join the training set; see `training.synthesis`."""
    synthetic_weight: float = 0.1
    """How often one synthetic study is drawn, relative to one real case."""
    # how long, and by which rule
    steps: int = 3000
    max_minutes: float | None = None
    """Time budget; the run ends and its learning rate has decayed when either limit is reached."""
    loss: Loss = "dice-ce"
    optimiser: Optimiser = "adamw"
    momentum: float = 0.99
    """Of SGD (Nesterov)."""
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    poly_power: float = 0.9
    final_lr_fraction: float = 0.01
    """Where the cosine ends; the polynomial ends at 0."""
    warmup_steps: int = 50
    weight_decay: float = 1e-5
    decay: Decay = "matrices"
    """What `weight_decay` acts on: matrices and kernels, or all weights, biases and norms too."""
    clip_norm: float = 5.0
    ema_decay: float = 0.995
    patience: int | None = None
    """Early stopping: validations without a better score after which the run ends."""
    epoch_steps: int = 250
    """Steps whose losses and pseudo-Dice are summed up in one line (nnU-Net's epoch)."""
    pseudo_dice_patches: int = 0
    """Validation patches that measure an epoch's pseudo-Dice, as nnU-Net does (it takes 50 batches
    of them); 0 measures it on the epoch's training patches, which costs nothing."""
    seed: int = 0
    # how the arithmetic is done
    precision: Arithmetic = "float32"
    """Of the convolutions; weights, optimiser, norms' statistics, Mamba and loss stay float32.
    ``auto`` is what is fast on the machine that starts the run: a run keeps it when it moves.
    ``float16`` scales the loss and wants a GPU."""
    checkpoint_activations: bool = False
    """Gradient checkpointing: blocks compute their activations again in the backward pass, about a
    third more time for a fraction of the memory."""
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
    save_steps: int | None = None
    """Keep a checkpoint ``step_N.pt`` of every so many steps, beside ``last`` and ``best``."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; nothing is changed."""
        for name in ("batch", "accumulate", "steps", "epoch_steps"):
            _require(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        for name in ("foreground_share", "ema_decay", "final_lr_fraction"):
            _require(name, 0 <= getattr(self, name) <= 1, "0 to 1", getattr(self, name))
        for name in ("overlap", "validation_overlap"):
            _require(name, 0 <= getattr(self, name) < 1, "0 to below 1", getattr(self, name))
        for name in ("learning_rate", "clip_norm", "lacking_weight"):
            _require(name, getattr(self, name) > 0, "a positive number", getattr(self, name))
        for name in ("max_minutes", "validate_steps", "save_steps", "patience"):
            limit = getattr(self, name)
            _require(name, limit is None or limit > 0, "a positive number or null", limit)
        patches = self.pseudo_dice_patches
        _require("pseudo_dice_patches", patches >= 0, "0 or more", patches)
        for mix in self.mixed_patches:
            _require("mixed_patches", mix.batch >= 1 and mix.share >= 0, "batches and shares", mix)
        parse_steps(self.postprocess, rules=rules_of(self.task))
        for patch in (self.patch, *(mix.patch for mix in self.mixed_patches)):
            self._check_patch(patch)
        shares = sum(mix.share for mix in self.mixed_patches)
        _require("mixed_patches", shares < 1, "shares that add up to below 1", shares)
        measured = self.normalisation != "ct" or len(self.intensities or ()) == len(
            self.task.channels
        )
        _require("intensities", measured, "one per channel for ct", self.intensities)
        object.__setattr__(self, "network_args", self._with_channels())

    def _check_patch(self, patch: Shape3) -> None:
        seen = patch[3 - self.task.dims :]
        _require("patch", min(seen) >= 8, "at least 8 voxels per axis", patch)
        if self.task.dims == 2:
            _require("patch", patch[0] == 1, "one voxel along the first axis (2-D task)", patch)

    def _with_channels(self) -> dict[str, Any]:
        """The network's arguments with what the task decides."""
        counts = {"in_channels": len(self.task.channels), "out_channels": len(self.task.outputs)}
        dims = {"spatial_dims": self.task.dims} if self.network == "lightm-unet" else {}
        return {**self.network_args, **counts, **dims}

    @property
    def sliding_window(self) -> Shape3:
        """Window (voxels) that validation and the exported model slide over a study."""
        return self.window or self.patch

    def settled(self, device: str) -> TrainConfig:
        """The same config with ``auto`` replaced by what it means on `device`, here and now.

        Raises:
            OptionError: ``float16`` on a CPU, which has no arithmetic for it.
        """
        if self.precision == "float16":
            on_gpu = not device.startswith("cpu")
            _require("precision", on_gpu, "bfloat16 or float32 on a CPU", self.precision)
            return self
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
