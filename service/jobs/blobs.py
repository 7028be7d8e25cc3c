"""Where images wait and results stay: a directory, or any storage that fsspec reaches (S3, …).

A blob appears whole or not at all, and is durable before the job table speaks of it: on a local
disk it is written beside its place, synced, and renamed; elsewhere one upload is one object. Keys
are made here from job ids and fixed words; nothing that a caller sent becomes part of a path.
Listings are never remembered: other processes write and delete as well.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from model_core.errors import OptionError

_SPOOL: Final = ".spool"
_PROBE: Final = ".probe"


class StorageUnreachableError(OSError):
    """The storage does not answer, or refuses; its own words stay in the cause."""


class BlobStore:
    """Files by key, ``a/b/c``.

    Every method raises `StorageUnreachableError` where storage beyond this machine fails.

    Args:
        url: a folder, or what fsspec takes, such as ``s3://bucket/prefix`` with s3fs installed.
        spool: local folder for what is on its way to storage that is not a local folder; a local
            folder has its own inside, so that a rename suffices.

    Raises:
        OptionError: the storage is of a kind that is not installed.
    """

    def __init__(self, url: str, spool: Path) -> None:
        try:
            storage, root = fsspec.url_to_fs(
                url, use_listings_cache=False, skip_instance_cache=True
            )
        except (ImportError, ValueError):
            raise OptionError(
                "SEGMAMBA_BLOBS_URL",
                expected="a folder, or storage that fsspec knows and that is installed",
                got="another URL",  # it may hold a secret, and so may the error
                way_out="Install its package (segmamba-service[s3] for s3://…), or leave the "
                "setting out.",
            ) from None
        self._local = Path(root) if isinstance(storage, LocalFileSystem) else None
        self._storage: Any = DirFileSystem(path=root, fs=storage)
        self.spool = spool if self._local is None else self._local / _SPOOL
        self.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held: set[Path] = set()

    def check(self) -> None:
        """Write, read, list and delete a blob: all that a service needs to be allowed.

        Raises:
            OptionError: one of them fails.
        """
        key = f"{_PROBE}/{uuid4().hex}"
        try:
            self.write(key.encode(), key)
            if self.read(key) != key.encode() or not self.ages(_PROBE):
                raise StorageUnreachableError("it does not give back what it was given")
            self.delete(key)
        except OSError as error:
            raise OptionError(
                "SEGMAMBA_BLOBS_URL",
                expected="storage where blobs can be written, read, listed and deleted",
                got=_fault(error),
                way_out="Check that the bucket or folder is there, its address "
                "(AWS_ENDPOINT_URL), and the credentials and their rights (AWS_ACCESS_KEY_ID …).",
            ) from None  # what a storage says may quote keys and addresses

    def spooled(self) -> Path:
        """A path for a file on its way; it becomes a blob by `keep`."""
        return self.spool / uuid4().hex

    def keep(self, path: Path, key: str) -> None:
        """Move a finished local file to its place."""
        if self._local is None:
            with _reached():
                self._storage.put_file(str(path), key)
            path.unlink()
            return
        place = self._local / key
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sync(path)
        path.replace(place)
        _sync(place.parent)

    def write(self, data: bytes, key: str) -> None:
        """Keep some bytes."""
        path = self.spooled()
        try:
            path.write_bytes(data)
            self.keep(path, key)
        finally:
            path.unlink(missing_ok=True)

    def read(self, key: str) -> bytes:
        """All bytes of a blob.

        Raises:
            FileNotFoundError: there is none.
        """
        with _reached(missing=FileNotFoundError):
            data: bytes = self._storage.cat_file(key)
        return data

    @contextmanager
    def as_file(self, key: str) -> Iterator[Path]:
        """A local file with a blob's content, for reading only.

        Raises:
            FileNotFoundError: there is none.
        """
        if self._local is not None:
            (self._local / key).stat()
            yield self._local / key
            return
        path = self.spooled()
        try:
            with _reached(missing=FileNotFoundError):
                self._storage.get_file(key, str(path))
            with self._holding(path):
                yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def workspace(self, prefix: str) -> Iterator[Path]:
        """A new local folder of this process's own, which is gone afterwards."""
        with (
            tempfile.TemporaryDirectory(prefix=prefix, dir=self.spool) as folder,
            self._holding(Path(folder)),
        ):
            yield Path(folder)

    @contextmanager
    def _holding(self, path: Path) -> Iterator[None]:
        self._held.add(path)
        try:
            yield
        finally:
            self._held.discard(path)

    def refresh_spool(self) -> None:
        """Make what this process uses young again, so that nobody's `clean_spool` takes it."""
        for path in tuple(self._held):
            with suppress(FileNotFoundError):
                os.utime(path)

    def exists(self, key: str) -> bool:
        """Whether there is such a blob."""
        with _reached():
            return bool(self._storage.exists(key))

    def delete(self, prefix: str) -> None:
        """Remove a blob, or all blobs below a prefix; nothing happens where there is none."""
        if self._local is not None:
            place = self._local / prefix
            with suppress(FileNotFoundError, NotADirectoryError):
                shutil.rmtree(place) if place.is_dir() else place.unlink()
            return
        with suppress(FileNotFoundError), _reached(missing=FileNotFoundError):
            self._storage.rm(prefix, recursive=True)

    def ages(self, prefix: str) -> list[tuple[str, float]]:
        """Names directly below a prefix, with the seconds since the last change at or below them.

        An object store knows no time of a folder, so those of the blobs in it are taken.
        """
        newest: dict[str, float] = {}
        with suppress(FileNotFoundError), _reached(missing=FileNotFoundError):
            found = self._storage.find(prefix, withdirs=True, detail=True)
            for path, entry in found.items():
                name = posixpath.relpath(path, prefix).split("/")[0]
                newest[name] = max(newest.get(name, 0.0), _changed(entry))
        now = time.time()
        return [(name, now - changed) for name, changed in newest.items() if name != "."]

    def clean_spool(self, older_seconds: float, now: float) -> int:
        """Remove files on their way that nobody brings any more; how many."""
        gone = 0
        for path in self.spool.iterdir():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > older_seconds:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    gone += 1
        return gone

    def free_bytes(self) -> int:
        """Room left on the disk of what is on its way, which is that of a local folder's blobs."""
        return shutil.disk_usage(self.spool).free


def input_key(job_id: str, name: str) -> str:
    """Where an input of a job lies."""
    return f"inputs/{job_id}/{name}"


def result_key(job_id: str, attempt: int) -> str:
    """Where an attempt's label map lies; another attempt has another place."""
    return f"results/{job_id}/{attempt}.nii.gz"


def archive_key(job_id: str, attempt: int) -> str:
    """Where the archive of all files of an attempt's result lies."""
    return f"results/{job_id}/{attempt}.zip"


def _changed(entry: Mapping[str, Any]) -> float:
    """When a listed entry last changed, in seconds since 1970; 0 where the storage does not say."""
    stamp = entry.get("mtime") or entry.get("LastModified") or entry.get("created")
    return stamp.timestamp() if isinstance(stamp, datetime) else float(stamp or 0)


@contextmanager
def _reached(missing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """One error for all that storage may raise, but for what says that a blob is missing."""
    try:
        yield
    except missing:
        raise
    except Exception as error:
        raise StorageUnreachableError(type(error).__name__) from error


def _fault(error: OSError) -> str:
    """What is wrong, without the storage's own words."""
    cause = error.__cause__ or error
    if isinstance(cause, FileNotFoundError):
        return "no such bucket or folder"
    if isinstance(cause, PermissionError):
        return "a refusal"
    return f"no answer that is of use ({type(cause).__name__})"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
