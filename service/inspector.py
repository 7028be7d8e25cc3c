"""Looking at what was sent without segmenting it: in a limited process, never in this one."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_core.types import Contrast
from service.form import SegmentForm
from service.settings import Settings

if TYPE_CHECKING:
    from service.reading import StudyReader


class Inspector:
    """Starts its fork server at the first question, as many services are never asked one.

    One study is open at a time: the process that opens it is what the API needs memory for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = threading.Lock()
        self._starting = threading.Lock()
        self._reader: StudyReader | None = None

    def inspect(self, form: SegmentForm, series: Mapping[Contrast, str]) -> dict[str, Any]:
        """The report about a form's images; waits while others are looked at.

        Args:
            form: its files are in the spool.
            series: the caller's own choice among DICOM series.

        Raises:
            InputError: nothing of it can be read.
        """
        from service.reading import DicomFiles

        with self._turn:
            if form.dicom is None:
                images = {contrast: image.path for contrast, image in form.images.items()}
                return self._here().inspect(images)
            workspace = tempfile.mkdtemp(prefix="dicom-", dir=form.dicom.path.parent)
            try:
                source = DicomFiles(
                    archive=form.dicom.path, workspace=Path(workspace), series=series
                )
                return self._here().inspect(source)
            finally:
                shutil.rmtree(workspace, ignore_errors=True)

    def close(self) -> None:
        """End its processes."""
        if self._reader is not None:
            self._reader.close()

    def _here(self) -> StudyReader:
        from service.reading import StudyReader

        with self._starting:
            if self._reader is None:
                self._reader = StudyReader(self._settings.reading_limits)
            return self._reader
