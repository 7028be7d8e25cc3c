"""Holding a second run against the first: what it ran with, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from model_core.labels import LabelArray
from model_core.metrics.overlap import region_dice
from model_core.provenance.digests import voxels_sha256
from model_core.provenance.manifest import RunManifest
from model_core.types import Region


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is not as it was: what, then and now."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two label maps differ.

    Attributes:
        identical: every voxel agrees.
        same_file: so does the encoded file, byte for byte.
        different_voxels: how many do not; None where the first map is not at hand.
        dice: of each region, likewise.
    """

    identical: bool
    same_file: bool
    different_voxels: int | None = None
    dice: Mapping[Region, float] | None = None

    def within(self, tolerance: float) -> bool:
        """Whether no region's Dice is more than `tolerance` below 1."""
        if self.identical:
            return True
        return self.dice is not None and 1 - min(self.dice.values()) <= tolerance


def differences(then: RunManifest, now: RunManifest) -> tuple[Difference, ...]:
    """Everything that could have moved a voxel and is not as it was."""
    before, after = dict(_facts(then)), dict(_facts(now))
    return tuple(
        Difference(what=what, then=before.get(what, "none"), now=after.get(what, "none"))
        for what in dict.fromkeys([*before, *after])
        if before.get(what) != after.get(what)
    )


def compare(
    manifest: RunManifest, labels: LabelArray, encoded_sha256: str, first: LabelArray | None
) -> Comparison:
    """Hold a label map against the one of a manifest.

    Args:
        manifest: of the first run.
        labels: internal labels of the second.
        encoded_sha256: of its encoded file.
        first: internal labels of the first run, where they are at hand.
    """
    if voxels_sha256(labels) == manifest.result.voxels_sha256:
        same_file = encoded_sha256 == manifest.result.file.sha256
        return Comparison(identical=True, same_file=same_file)
    if first is None or first.shape != labels.shape:
        return Comparison(identical=False, same_file=False)
    return Comparison(
        identical=False,
        same_file=False,
        different_voxels=int(np.count_nonzero(first != labels)),
        dice=region_dice(labels, first),
    )


def _tools(account: Mapping[str, JsonValue] | None) -> list[str]:
    """Programs that prepared the images, with their versions, as the account names them."""
    steps = (account or {}).get("steps")
    if not isinstance(steps, list):
        return []
    return sorted(
        {str(step["tool"]) for step in steps if isinstance(step, dict) and "tool" in step}
    )


def _facts(manifest: RunManifest) -> Iterator[tuple[str, str]]:
    """In the order in which they are likely to matter."""
    for contrast, record in manifest.inputs.items():
        yield f"decoded voxels of {contrast}", record.decoded_sha256[:12]
    yield "grid of the result", manifest.preparation.onto
    yield "prepared by", "; ".join(_tools(manifest.preparation.account)) or "nothing"
    model = manifest.model
    yield "model", f"{model.name} {model.version}"
    yield "weights", model.weights_sha256[:12]
    yield "model card", model.card_sha256[:12]
    engine = manifest.engine
    for name in ("device", "backend", "precision", "threads", "machine", "window_choice"):
        yield name.replace("_", " "), str(getattr(engine, name))
    yield "window", " x ".join(map(str, engine.window))
    yield "mirrored passes", str(engine.tta.get("passes"))
    yield "steps for want of memory", ", ".join(engine.memory_steps) or "none"
    yield "program", manifest.code.version
    yield "commit", manifest.code.commit or "none"
    yield from manifest.packages.items()
