"""The model card: everything about a network that its weights do not say.

It is read by people (``segmamba models``) and obeyed by the program: preprocessing, windows,
mirroring, decoding and post-processing all take their settings from it. A card that exists is
complete and free of contradictions.

Frames: ``orientation`` names the direction in which each array axis of the network's input runs,
first letter first ("SPL": axis 0 towards superior, 1 posterior, 2 left). ``spacing_mm``,
``window`` and ``mirror_axes`` count those axes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from model_core.networks import NetworkName
from model_core.postprocess import Step
from model_core.types import Contrast, LabelScheme, Shape3, Spacing, Tta

FORMAT_VERSION: Literal[1] = 1
LABEL_OUTPUTS = ("background", "NCR", "ED", "ET")
REGION_OUTPUTS = ("WT", "TC", "ET")

Text = Annotated[str, Field(min_length=1)]
_AXES = ({"L", "R"}, {"P", "A"}, {"I", "S"})


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingRecord(_Record):
    """Where the weights come from. More fields may be added; they are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    data: Text
    code_version: Text
    recipe: Text


class WeightsRecord(_Record):
    """The tensors that belong to this card."""

    file: Literal["weights.safetensors"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parameters: Annotated[int, Field(gt=0)]


class CardDraft(_Record):
    """A card whose weights have not been stored yet. `save_bundle` turns it into a `ModelCard`.

    Raises:
        pydantic.ValidationError: naming every field that is missing, unknown or inconsistent.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Lower case, digits, dot, dash, underscore: it also names a folder and labels a metric."""
    version: Text
    family: NetworkName
    network: dict[str, JsonValue]
    """Every constructor argument of the family's network."""

    channels: tuple[Contrast, ...]
    """The contrasts in the order of the network's input channels."""
    heads: Literal["labels", "regions"]
    """``labels``: one logit per class, the largest wins. ``regions``: one logit per nested region,
    each on its own."""
    outputs: tuple[Text, ...]
    """The meaning of each output channel, in order."""
    label_scheme: LabelScheme
    """The numbering of written label maps unless the caller asks for another."""

    orientation: Annotated[str, Field(pattern=r"^[LRPAIS]{3}$")]
    spacing_mm: Spacing
    normalisation: Literal["zscore-nonzero", "zscore-brain", "zscore-box"]
    window: Shape3
    overlap: Annotated[float, Field(ge=0, lt=1)]
    tiling: Literal["monai", "nnunet"] = "monai"
    """Whose rule places the windows and weighs their voxels: ``monai``, full steps and a last
    window moved back; ``nnunet``, equal steps, and a Gaussian centred on voxel n // 2."""
    region_rule: Literal["nested", "painted"] = "nested"
    """How region logits become labels: ``nested``, a region counts only inside the one around it;
    ``painted``, each later region paints wherever it is found, as nnU-Net does."""
    mirror_axes: tuple[Literal[0, 1, 2], ...]
    """Axes along which the network was trained to expect mirror images."""
    tta: Tta
    """Mirroring at inference unless the caller asks for another."""
    postprocess: tuple[Step, ...]

    training: TrainingRecord
    metrics: dict[str, JsonValue]
    licence: Text
    intended_use: Text
    limitations: Text
    citation: Text

    @field_validator("channels", "outputs", "mirror_axes")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"each value may appear once, got {', '.join(map(str, values))}")
        return values

    @field_validator("orientation")
    @classmethod
    def _three_axes(cls, codes: str) -> str:
        if any(len(axis & set(codes)) != 1 for axis in _AXES):
            raise ValueError(f"one letter each of L/R, P/A and I/S, got {codes}")
        return codes

    @field_validator("spacing_mm", "window")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError(f"three positive numbers, got {values}")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_outputs()
        self._check_network()
        if self.tta != "none" and not self.mirror_axes:
            raise ValueError(f"tta is {self.tta}, but mirror_axes is empty: nothing to mirror")
        return self

    def _check_outputs(self) -> None:
        wanted = LABEL_OUTPUTS if self.heads == "labels" else REGION_OUTPUTS
        if set(self.outputs) != set(wanted):
            raise ValueError(
                f"outputs of {self.heads} heads are {', '.join(wanted)} in the network's order, "
                f"got {', '.join(self.outputs)}"
            )

    def _check_network(self) -> None:
        network = self.network
        for key, values in (("in_channels", self.channels), ("out_channels", self.outputs)):
            if network.get(key) != len(values):
                raise ValueError(
                    f"network.{key} is {network.get(key)}, but the card names {len(values)}: "
                    f"{', '.join(values)}"
                )
        if network.get("spatial_dims", 3) != 3:
            raise ValueError("a bundle holds a 3-D network; load_upstream gives 2-D ones")


class ModelCard(CardDraft):
    """The complete card of a stored bundle."""

    format_version: Literal[1]
    weights: WeightsRecord
