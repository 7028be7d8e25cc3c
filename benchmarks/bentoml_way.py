"""The bundle behind BentoML, as its documentation has it: one worker, four files in, one out.

``bentoml serve benchmarks.bentoml_way:Segment``. Its limit of time on a request is raised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.bare import label_map, warm_segmenter
from model_core.types import Contrast


@bentoml.service(workers=1, traffic={"timeout": 3600})
class Segment:
    """Four images to a label map."""

    def __init__(self) -> None:
        self.segmenter, self.options = warm_segmenter()

    @bentoml.api
    def segment(
        self, t1: Path, t1ce: Path, t2: Path, flair: Path, context: bentoml.Context
    ) -> Annotated[Path, ContentType("application/gzip")]:
        """Segment."""
        images: dict[Contrast, Path] = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair}
        made = Path(context.temp_dir) / "labels.nii.gz"
        made.write_bytes(label_map(self.segmenter, self.options, images))
        return made
