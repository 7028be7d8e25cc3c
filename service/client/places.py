"""Where studies lie and results go: a folder, or a prefix in storage that fsspec reaches (S3, …).

Names are relative to the place, with ``/`` between parts. A *mark* is what a listing tells of a
file without reading it (size and time, or the ETag): an equal mark means an unchanged file.
"""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from model_core.cli.outputs import all_or_nothing
from model_core.errors import OptionError
from service.client.errors import PlaceUnreachable

_SCHEME: Final = "://"
_UNPACKED: Final = "dataset.json"
"""The one file of a data set whose content says how the others are to be read."""
_NUMBERED: Final = re.compile(r"_\d{4}\.nii(\.gz)?$", re.IGNORECASE)
"""A channel of nnU-Net, whose meaning that file may tell."""


class Place(Protocol):
    """A folder or what takes its part."""

    def shown(self, name: str) -> str:
        """Where a file lies, for the user's own screen."""

    def files(self) -> dict[str, str]:
        """Every file at or below the place with its mark; hidden ones are left out."""

    def mark(self, name: str) -> str:
        """The mark of one file."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def start(self, name: str, size: int) -> bytes:
        """The first bytes of a file."""

    def read(self, name: str) -> bytes:
        """All bytes of a file."""

    def put(self, files: Mapping[str, bytes], *, private: bool = False) -> None:
        """Write files, each whole or not at all; the last one only after all the others."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @contextmanager
    def copies(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Local files with the content of these, in the same order, for reading only."""

    @contextmanager
    def as_folder(self, names: Sequence[str]) -> Iterator[Path]:
        """A local folder with files of these names; only ``dataset.json`` needs its content."""


def open_place(url: str) -> Place:
    """The place that a path or an address means; nothing is looked at yet.

    Raises:
        OptionError: storage of a kind that is not installed.
    """
    return Storage(url) if _SCHEME in url else Folder(Path(url))


class Folder:
    """A folder of this machine.

    Args:
        root: the folder; names that are absolute, or that lead out of it, are the user's own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def shown(self, name: str) -> str:
        """The path as the user would write it."""
        return os.path.normpath(self.root / name)

    def files(self) -> dict[str, str]:
        """Every file; links to folders are not followed."""
        found = {}
        for place, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                relative = Path(place, name).relative_to(self.root).as_posix()
                found[relative] = self.mark(relative)
        return found

    def mark(self, name: str) -> str:
        """Size and time; empty where the file cannot be looked at."""
        try:
            status = (self.root / name).stat()
        except OSError:
            return ""
        return f"{status.st_size}-{status.st_mtime_ns}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.root / name).exists()

    def start(self, name: str, size: int) -> bytes:
        """The first bytes."""
        with (self.root / name).open("rb") as file:
            return file.read(size)

    def read(self, name: str) -> bytes:
        """All bytes."""
        return (self.root / name).read_bytes()

    def put(self, files: Mapping[str, bytes], *, private: bool = False) -> None:
        """All of them appear, or none does."""
        with all_or_nothing() as stage:
            for name, data in files.items():
                staged = stage(self.root / name)
                if private:
                    staged.touch(mode=0o600)
                staged.write_bytes(data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def copies(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """The files themselves."""
        yield [self.root / name for name in names]

    @contextmanager
    def as_folder(self, names: Sequence[str]) -> Iterator[Path]:  # noqa: ARG002 - they are there
        """The folder itself."""
        yield self.root


class Storage:
    """A prefix in storage beyond this machine; keys and addresses come from the environment.

    Every method raises `PlaceUnreachable` where the storage does not answer or refuses.

    Args:
        url: what fsspec takes, such as ``s3://bucket/prefix``.

    Raises:
        OptionError: a kind of storage that is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._storage, root = fsspec.url_to_fs(
                url, use_listings_cache=False, skip_instance_cache=True
            )
        except (ImportError, ValueError):
            raise OptionError(
                "studies or --output",
                expected="a folder, or storage that fsspec knows and that is installed",
                got="another address",  # it may hold a secret, and so may the error
                way_out="Install its package (segmamba-service[s3] for s3://…).",
            ) from None
        self._url, self._root = url.rstrip("/"), str(root).rstrip("/")

    def shown(self, name: str) -> str:
        """The address."""
        return f"{self._url}/{name}"

    def files(self) -> dict[str, str]:
        """Every object; keys that could lead out of a folder are passed over."""
        with _reached(FileNotFoundError):
            try:
                found = self._storage.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        relative = {posixpath.relpath(key, self._root): entry for key, entry in found.items()}
        return {name: _mark(entry) for name, entry in sorted(relative.items()) if _is_plain(name)}

    def mark(self, name: str) -> str:
        """ETag, or size and time."""
        with _reached():
            return _mark(self._storage.info(self._key(name)))

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        with _reached():
            return bool(self._storage.exists(self._key(name)))

    def start(self, name: str, size: int) -> bytes:
        """The first bytes."""
        # not by a range of bytes, which an empty object cannot satisfy
        with (
            _reached(FileNotFoundError),
            self._storage.open(self._key(name), "rb", cache_type="none") as file,
        ):
            return bytes(file.read(size))

    def read(self, name: str) -> bytes:
        """All bytes."""
        with _reached(FileNotFoundError):
            return bytes(self._storage.cat_file(self._key(name)))

    def put(
        self,
        files: Mapping[str, bytes],
        *,
        private: bool = False,  # noqa: ARG002 - who may read is the bucket's own rule
    ) -> None:
        """One object after the other; each appears whole."""
        with _reached():
            for name, data in files.items():
                self._storage.pipe_file(self._key(name), data)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with _reached(FileNotFoundError):
            if self.exists(name):
                self._storage.rm_file(self._key(name))

    @contextmanager
    def copies(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Copies in a private folder, under numbers: names may name patients."""
        with tempfile.TemporaryDirectory(prefix="segmamba-") as folder:
            paths = [
                Path(folder, f"{number:06d}{_ending(name)}") for number, name in enumerate(names)
            ]
            with _reached(FileNotFoundError):
                for name, path in zip(names, paths, strict=True):
                    self._storage.get_file(self._key(name), str(path))
            yield paths

    @contextmanager
    def as_folder(self, names: Sequence[str]) -> Iterator[Path]:
        """Empty files of these names, so that the rules for folders hold for a listing too."""
        with tempfile.TemporaryDirectory(prefix="segmamba-") as outer:
            folder = Path(outer, posixpath.basename(self._root) or "studies")
            folder.mkdir()
            for name in names:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.read(name) if path.name == _UNPACKED else b"")
            beside = f"../{_UNPACKED}"  # nnU-Net keeps it beside the folder of images
            numbered = any(map(_NUMBERED.search, names))  # else nobody may need rights up there
            if numbered and "/" in self._root and self.exists(beside):
                Path(outer, _UNPACKED).write_bytes(self.read(beside))
            yield folder

    def _key(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(self._root, name))


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not any(part.startswith(".") or "\\" in part for part in parts)


def _ending(name: str) -> str:
    """The part of a name that says the format."""
    lower = name.lower()
    return next((end for end in (".nii.gz", ".nii", ".zip") if lower.endswith(end)), "")


def _mark(entry: Mapping[str, Any]) -> str:
    etag = entry.get("ETag")
    changed = entry.get("LastModified") or entry.get("mtime") or ""
    return str(etag).strip('"') if etag else f"{entry.get('size')}-{changed}"


@contextmanager
def _reached(*missing: type[Exception]) -> Iterator[None]:
    """One error for all that storage may raise, but for what says that a file is missing."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (*missing, PlaceUnreachable)):
            raise
        # only the kind: what a storage says may quote keys and addresses
        raise PlaceUnreachable(
            f"the storage does not answer, or refuses ({type(error).__name__}). Check the bucket, "
            "its address (AWS_ENDPOINT_URL), and the credentials and their rights "
            "(AWS_ACCESS_KEY_ID …)."
        ) from error
