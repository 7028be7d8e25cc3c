"""The one folder whose studies an assistant may name, and no file outside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from model_core.errors import OptionError
from service.client.find import find_one
from service.client.places import Folder
from service.client.source import Source
from service.client.upload import DICOM, Images

_PATH: Final = "path"


class AllowedFolder:
    """A folder, looked at with every link resolved.

    Args:
        root: the folder.

    Raises:
        OptionError: it is none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        if not self._root.is_dir():
            raise OptionError(
                "--folder", expected="a folder", got="none that is there", way_out="Check the path."
            )

    @contextmanager
    def study(self, path: str) -> Iterator[Images]:
        """The images of the study at a path, ready to be sent.

        Args:
            path: of a folder or zip archive, relative to the allowed folder or absolute.

        Raises:
            OptionError: it, or a file of it, lies outside; or it is not there.
            StudyError: it is not one study.
            OSError: a file cannot be read.
        """
        place = self._inside(path)
        source = find_one(place)
        self._check_files(source)
        with source.opened() as files:
            yield cast("Images", files.get(DICOM, files))

    def _inside(self, path: str) -> Path:
        try:
            found = Path(os.path.realpath(self._root / path))
        except (OSError, ValueError):  # a name that no file can have
            raise _refused() from None
        if not found.is_relative_to(self._root):
            raise _refused()
        if not found.exists():
            raise OptionError(
                _PATH,
                expected="a study below the allowed folder",
                got="nothing there",
                way_out="Ask the user for the study's folder, relative to the allowed one.",
            )
        return found

    def _check_files(self, source: Source) -> None:
        """A link inside the folder may lead out of it."""
        assert isinstance(source.place, Folder)
        for name in (*source.files.values(), *source.members):
            if not Path(os.path.realpath(source.place.root / name)).is_relative_to(self._root):
                raise _refused()


def _refused() -> OptionError:
    return OptionError(
        _PATH,
        expected="a study below the allowed folder, links resolved",
        got="a path that leads out of it",
        way_out="Only studies below the folder that the user named with --folder can be read.",
    )
