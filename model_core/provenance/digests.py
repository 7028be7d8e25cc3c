"""Checksums of files, of voxels with their place, and of model cards. All are SHA-256 in hex."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from model_core.imaging.volume import Volume

if TYPE_CHECKING:
    from model_core.checkpoints import ModelCard

_MM_DECIMALS: Final = 6
"""Of an affine: a nanometre, beyond which machines may round differently."""


def sha256_of(source: Path | bytes) -> str:
    """Of a file's bytes.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def voxels_sha256(array: NDArray[Any]) -> str:
    """Of an array's kind, shape and values, whatever its layout in memory."""
    digest = hashlib.sha256(f"{array.dtype.kind}{array.dtype.itemsize} {array.shape}".encode())
    little_endian = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    digest.update(little_endian.data)
    return digest.hexdigest()


def decoded_sha256(volume: Volume) -> str:
    """Of a volume as it is in memory: its voxels, and where they lie to a nanometre."""
    affine = volume.affine.round(_MM_DECIMALS) + 0.0  # minus zero is zero
    return hashlib.sha256(
        f"{voxels_sha256(volume.array)} {voxels_sha256(affine)}".encode()
    ).hexdigest()


def card_sha256(card: ModelCard) -> str:
    """Of what a card says, whatever its layout; fields that it leaves to their default are out."""
    content = card.model_dump(mode="json", exclude_unset=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
