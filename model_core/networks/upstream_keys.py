"""The authors' parameter names and ours: one table per family, read in both directions.

A table row pairs the beginning of one of our names with the beginning of theirs. ``{i}`` stands
for a number that both carry; ``{j+1}`` for ours plus one. What follows the beginning is the same
on both sides, except inside a Mamba mixer (`_MIXER`). Every name of a network must be covered and
no two may meet: `key_map` checks that, so the map is a bijection or there is no map.

`detect` reads family and sizes from the tensors alone, by letting every tensor that depends on a
size vote for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from torch import Tensor

from model_core.errors import CheckpointError
from model_core.networks.segmamba import PUBLISHED_NUM_SLICES

Tensors = Mapping[str, Tensor]
Row = tuple[str, str]

_MIXER: Final[tuple[Row, ...]] = (
    ("in_proj", "in_proj"),
    ("out_proj", "out_proj"),
    *(
        (f"scan_{direction}.{ours}", theirs.format(suffix))
        for direction, suffix in (("forward", ""), ("reverse", "_b"), ("inter_slice", "_s"))
        for ours, theirs in (
            ("A_log", "A{}_log"),
            ("D", "D{}"),
            ("conv", "conv1d{}"),
            ("x_proj", "x_proj{}"),
            ("dt_proj", "dt_proj{}"),
        )
    ),
)

_CONV_BLOCK: Final[tuple[Row, ...]] = (
    ("conv1", "conv1.conv"),
    ("conv2", "conv2.conv"),
    ("shortcut", "conv3.conv"),
)


def _nested(row: Row, inner: Iterable[Row]) -> tuple[Row, ...]:
    return tuple((f"{row[0]}.{ours}", f"{row[1]}.{theirs}") for ours, theirs in inner)


_SEGMAMBA: Final[tuple[Row, ...]] = (
    ("stages.0.downsample", "vit.downsample_layers.0.0"),
    ("stages.{i}.downsample", "vit.downsample_layers.{i}.1"),  # theirs begins with a norm
    ("stages.{i}.spatial.conv1", "vit.gscs.{i}.proj"),
    ("stages.{i}.spatial.conv2", "vit.gscs.{i}.proj2"),
    ("stages.{i}.spatial.conv3", "vit.gscs.{i}.proj3"),
    ("stages.{i}.spatial.fuse", "vit.gscs.{i}.proj4"),
    ("stages.{i}.layers.{j}.norm", "vit.stages.{i}.{j}.norm"),
    ("stages.{i}.layers.{j}.mixer", "vit.stages.{i}.{j}.mamba"),
    ("stages.{i}.mlp1", "vit.mlps.{i}.fc1"),
    ("stages.{i}.mlp2", "vit.mlps.{i}.fc2"),
    *_nested(("skips.{i}", "encoder{i+1}.layer"), _CONV_BLOCK),
    *(
        row
        for ours, theirs in ((0, 5), (1, 4), (2, 3), (3, 2))  # they count decoders upwards
        for row in (
            (f"ups.{ours}.upsample", f"decoder{theirs}.transp_conv.conv"),
            *_nested((f"ups.{ours}.block", f"decoder{theirs}.conv_block"), _CONV_BLOCK),
        )
    ),
    *_nested(("refine", "decoder1.layer"), _CONV_BLOCK),
    ("head", "out.conv.conv"),
)

_BRTM_CONV_BLOCK: Final[tuple[Row, ...]] = (
    ("conv1", "conv.0"),
    ("norm1", "conv.1"),
    ("conv2", "conv.3"),
    ("norm2", "conv.4"),
    ("shortcut.conv", "residual.0"),
    ("shortcut.norm", "residual.1"),
)


_BRTM: Final[tuple[Row, ...]] = (
    *_nested(("stem", "initial_conv"), _BRTM_CONV_BLOCK),
    *_nested(("encoders.{i}.blocks.{j}", "encoders.{i}.blocks.{j}"), _BRTM_CONV_BLOCK),
    ("encoders.{i}.blocks.{j}.norm", "encoders.{i}.blocks.{j}.norm"),
    ("encoders.{i}.blocks.{j}.mixer", "encoders.{i}.blocks.{j}.mamba"),
    ("encoders.{i}.downsample", "encoders.{i}.downsample"),
    *_nested(("bottleneck.{i}", "bottleneck.{i}"), _BRTM_CONV_BLOCK),
    ("bottleneck.{i}.norm", "bottleneck.{i}.norm"),
    ("bottleneck.{i}.mixer", "bottleneck.{i}.mamba"),
    ("decoders.{i}.upsample", "decoders.{i}.upsample"),
    *_nested(("decoders.{i}.blocks.{j}", "decoders.{i}.blocks.{j}"), _BRTM_CONV_BLOCK),
    ("head", "segmentation_head"),
)

_RVM: Final[tuple[Row, ...]] = (
    ("norm", "norm"),
    ("mixer", "mamba"),
    ("skip_scale", "skip_scale"),
    ("proj", "proj"),
)

_LIGHTM: Final[tuple[Row, ...]] = (
    ("stem.depthwise", "convInit.0.conv"),
    ("stem.pointwise", "convInit.1.conv"),
    *_nested(("encoder.{i}.widen", "down_layers.{i}.0.0"), _RVM),
    ("encoder.{i}.blocks.{j}.norm1", "down_layers.{i}.{j+1}.norm1"),
    ("encoder.{i}.blocks.{j}.norm2", "down_layers.{i}.{j+1}.norm2"),
    *_nested(("encoder.{i}.blocks.{j}.rvm1", "down_layers.{i}.{j+1}.conv1"), _RVM),
    *_nested(("encoder.{i}.blocks.{j}.rvm2", "down_layers.{i}.{j+1}.conv2"), _RVM),
    ("decoder.{i}.narrow", "up_samples.{i}.0.conv"),
    ("decoder.{i}.blocks.{j}.norm1", "up_layers.{i}.{j}.norm1"),
    ("decoder.{i}.blocks.{j}.norm2", "up_layers.{i}.{j}.norm2"),
    ("decoder.{i}.blocks.{j}.conv.depthwise", "up_layers.{i}.{j}.conv.0.conv"),
    ("decoder.{i}.blocks.{j}.conv.pointwise", "up_layers.{i}.{j}.conv.1.conv"),
    ("decoder.{i}.blocks.{j}.skip_scale", "up_layers.{i}.{j}.skip_scale"),
    ("head.norm", "conv_final.0"),
    ("head.conv.depthwise", "conv_final.2.0.conv"),
    ("head.conv.pointwise", "conv_final.2.1.conv"),
)


def key_map(family: str, our_keys: Iterable[str]) -> dict[str, str]:
    """The authors' name of every tensor, mapped to ours.

    Args:
        family: a name of `model_core.networks.NETWORKS`.
        our_keys: the keys of that network's ``state_dict``.
    """
    theirs_to_ours: dict[str, str] = {}
    for ours in our_keys:
        theirs = _to_theirs(ours, FAMILIES[family].table)
        assert theirs not in theirs_to_ours, f"{ours} and {theirs_to_ours[theirs]} meet in {theirs}"
        theirs_to_ours[theirs] = ours
    return theirs_to_ours


def _to_theirs(ours: str, table: Iterable[Row]) -> str:
    for our_beginning, their_beginning in table:
        match = re.match(_pattern(our_beginning), ours)
        if match:
            rest = ours[match.end() :]
            if our_beginning.endswith("mixer"):
                rest = "." + _to_theirs(rest.removeprefix("."), _MIXER)
            return _fill(their_beginning, match.groupdict()) + rest
    raise AssertionError(f"no row of the table covers {ours}")


def _pattern(beginning: str) -> str:
    return re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(beginning)) + r"(?=\.|$)"


def _fill(beginning: str, numbers: Mapping[str, str]) -> str:
    filled = re.sub(r"\{(\w)\}", lambda m: numbers[m[1]], beginning)
    return re.sub(r"\{(\w)\+1\}", lambda m: str(int(numbers[m[1]]) + 1), filled)


# ------------------------------------------------------------------------------- sizes by vote


@dataclass(frozen=True)
class _Votes:
    """The tensors of a file, asked for one size at a time."""

    tensors: Tensors

    def size(self, what: str, *asked: tuple[str, int]) -> int:
        """One size, agreed on by axis ``axis`` of every tensor whose name matches ``pattern``.

        Args:
            what: the size's name in the message.
            asked: pairs of pattern (a regular expression for the whole name) and axis.

        Raises:
            CheckpointError: if no tensor tells the size, or if some contradict the others.
        """
        votes = {
            name: tensor.shape[axis]
            for pattern, axis in asked
            for name, tensor in self.tensors.items()
            if re.fullmatch(pattern, name) and tensor.ndim > axis
        }
        if not votes:
            patterns = ", ".join(pattern.replace("\\", "") for pattern, _ in asked)
            raise CheckpointError(f"{what} cannot be read: missing tensor {patterns}")
        counts = Counter(votes.values()).most_common()
        if len(counts) > 1:
            raise CheckpointError(_disagreement(what, votes, counts=counts))
        return counts[0][0]

    def count(self, beginning: str, *, first: int = 0) -> int:
        """How many consecutively numbered parts begin like this: ``beginning.<number>.``."""
        pattern = re.compile(re.escape(beginning) + r"\.(\d+)\.")
        numbers = {int(m[1]) for name in self.tensors if (m := pattern.match(name))}
        count = 0
        while first + count in numbers:
            count += 1
        return count

    def counts(self, beginning: str, stages: int, *, first: int = 0) -> tuple[int, ...]:
        """`count` for every stage of ``beginning`` (which holds ``{}`` for the stage)."""
        return tuple(self.count(beginning.format(stage), first=first) for stage in range(stages))


def _disagreement(what: str, votes: Mapping[str, int], *, counts: list[tuple[int, int]]) -> str:
    majority, strength = counts[0]
    tied = counts[1][1] == strength
    odd = [name for name, vote in votes.items() if tied or vote != majority]
    told = ", ".join(f"{name} says {votes[name]}" for name in odd[:4])
    against = "" if tied else f"; {strength} others say {majority}"
    return f"tensors disagree on the {what}: {told}{against}"


def _segmamba_config(votes: _Votes) -> dict[str, Any]:
    features = tuple(
        votes.size(
            f"width of stage {i}",
            (rf"vit\.stages\.{i}\.\d+\.norm\.(weight|bias)", 0),
            (rf"vit\.gscs\.{i}\.proj\d?\.bias", 0),
            (rf"vit\.downsample_layers\.{i}\.[01]\.(weight|bias)", 0),
        )
        for i in range(4)
    )
    return {
        "in_channels": votes.size(
            "number of input channels",
            (r"vit\.downsample_layers\.0\.0\.weight", 1),
            (r"encoder1\.layer\.conv[13]\.conv\.weight", 1),
        ),
        "out_channels": votes.size(
            "number of classes", (r"out\.conv\.conv\.weight", 0), (r"out\.conv\.conv\.bias", 0)
        ),
        "depths": votes.counts("vit.stages.{}", 4),
        "features": features,
        "hidden": votes.size(
            "width of the deepest decoder input",
            (r"encoder5\.layer\.conv\d\.conv\.weight", 0),
            (r"decoder5\.transp_conv\.conv\.weight", 0),
        ),
        "num_slices": PUBLISHED_NUM_SLICES,
    }


def _brtm_config(votes: _Votes) -> dict[str, Any]:
    return {
        "in_channels": votes.size(
            "number of input channels",
            (r"initial_conv\.conv\.0\.weight", 1),
            (r"initial_conv\.residual\.0\.weight", 1),
        ),
        "out_channels": votes.size("number of classes", (r"segmentation_head\.(weight|bias)", 0)),
        "base_channels": votes.size(
            "base width",
            (r"initial_conv\.conv\.\d\.(weight|bias)", 0),
            (r"initial_conv\.residual\.\d\.(weight|bias)", 0),
        ),
        "depths": votes.counts("encoders.{}.blocks", votes.count("encoders")),
    }


def _lightm_config(votes: _Votes) -> dict[str, Any]:
    stages = votes.count("down_layers")
    return {
        "spatial_dims": _spatial_dims(votes.tensors),
        "in_channels": votes.size(
            "number of input channels",
            (r"convInit\.0\.conv\.weight", 0),
            (r"convInit\.1\.conv\.weight", 1),
        ),
        "out_channels": votes.size(
            "number of classes", (r"conv_final\.2\.1\.conv\.(weight|bias)", 0)
        ),
        "init_filters": votes.size(
            "number of filters",
            (r"convInit\.1\.conv\.weight", 0),
            (r"conv_final\.0\.(weight|bias)", 0),
            (r"conv_final\.2\.0\.conv\.(weight|bias)", 0),
        ),
        "blocks_down": votes.counts("down_layers.{}", stages, first=1),
        "blocks_up": votes.counts("up_layers.{}", votes.count("up_layers")),
    }


def _spatial_dims(tensors: Tensors) -> int:
    ranks = Counter(
        tensor.ndim - 2 for name, tensor in tensors.items() if name.endswith(".conv.weight")
    )
    if not ranks:
        raise CheckpointError(
            "the number of axes cannot be read: missing tensor convInit.0.conv.weight"
        )
    return ranks.most_common(1)[0][0]


# ------------------------------------------------------------------------------------- families


@dataclass(frozen=True)
class Family:
    """How to recognise one family's weights, read their sizes and rename them."""

    recognise: Callable[[Tensors], bool]
    config: Callable[[_Votes], dict[str, Any]]
    table: tuple[Row, ...]


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "segmamba": Family(
            recognise=lambda tensors: _any(tensors, r"vit\..*mamba\.\w+_[bs](_log|\..*)?"),
            config=_segmamba_config,
            table=_SEGMAMBA,
        ),
        "segmamba-brtm": Family(
            recognise=lambda tensors: _any(tensors, r"initial_conv\..*|segmentation_head\..*"),
            config=_brtm_config,
            table=_BRTM,
        ),
        "lightm-unet": Family(
            recognise=lambda tensors: _any(tensors, r"convInit\.[01]\..*|conv_final\.2\.[01]\..*"),
            config=_lightm_config,
            table=_LIGHTM,
        ),
    }
)


def detect(tensors: Tensors) -> tuple[str, dict[str, Any]]:
    """Family and constructor arguments of an authors' ``state_dict``.

    Returns:
        A name of `model_core.networks.NETWORKS` and the arguments for `build_network`.

    Raises:
        CheckpointError: for a family that this project cannot run, and for tensors that
            contradict each other or leave a size open.
    """
    for name, family in FAMILIES.items():
        if family.recognise(tensors):
            return name, family.config(_Votes(tensors))
    raise CheckpointError(_unknown_family(tensors))


def _unknown_family(tensors: Tensors) -> str:
    if _any(tensors, r"vit\..*mamba\.A_log"):
        return (
            "these are SegMamba-V2 weights (a vit encoder with one-directional Mamba), a different "
            "network that this project does not contain; it runs SegMamba V1, SegMamba-BRTM and "
            "LightM-UNet"
        )
    if "convInit.conv.weight" in tensors:
        return (
            "these are weights of an early LightM-UNet with plain convolutions; this project runs "
            "the released one, whose stem is depthwise (convInit.0.conv.weight)"
        )
    first = ", ".join(list(tensors)[:3]) or "no tensor at all"
    return (
        f"the tensors belong to no known family (SegMamba V1, SegMamba-BRTM, LightM-UNet): the "
        f"file holds {first}"
    )


def _any(tensors: Tensors, pattern: str) -> bool:
    return any(re.fullmatch(pattern, name) for name in tensors)
