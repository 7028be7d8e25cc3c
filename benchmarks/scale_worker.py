"""``python -m benchmarks.scale_worker``: workers that are real but for their device.

Each is `service.worker.process.run_worker` in a process of its own: it claims, reads the images in
a process with limits, beats, tells its progress, measures, packs and keeps the result. Only what
segments is replaced, here and in no other process: it waits as long as a device would compute and
then answers with a label map that it was given. All are forked from one process, so that many of
them share the memory of the libraries.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from model_core.catalogue import InstalledBundle
from model_core.checkpoints import ModelCard, load_bundle
from model_core.imaging.nifti import read_label_map
from model_core.imaging.study import Study
from model_core.inference.segmentation import Segmentation, SegmentOptions
from model_core.inference.sliding_window import INFER_STAGE, raise_if_cancelled
from model_core.labels import volumes_ml
from model_core.types import CancelCheck, Progress
from service.cli import read_settings
from service.settings import Settings
from service.supervisor import WORKER_ID_VARIABLE
from service.worker import process
from service.worker.registry import SegmenterFactory

WINDOW_SECONDS: Final = 0.1
"""Of one simulated window: progress is told and a cancellation heard as often."""
_OPTIONS: Final = SegmentOptions()


class WaitingSegmenter:
    """Honours the segmenter's contract without computing.

    Args:
        card: of the model that it stands for.
        truth: file of the label map that is the answer to every study.
        seconds: file that says how long a study takes; it is read anew for each.
    """

    backend: Final = "none"
    device: Final = "simulated"
    precision: Final = "float32"

    def __init__(self, card: ModelCard, truth: Path, seconds: Path) -> None:
        self.card, self._seconds = card, seconds
        self._labels, _ = read_label_map(truth, argument="truth")

    def warm_up(self) -> float:
        """Nothing is to be warmed up."""
        return 0.0

    def segment(
        self,
        study: Study,
        options: SegmentOptions = _OPTIONS,
        *,
        progress: Progress | None = None,
        cancelled: CancelCheck | None = None,
    ) -> Segmentation:
        """Wait, and answer."""
        seconds = float(self._seconds.read_text(encoding="utf-8"))
        windows = max(1, round(seconds / WINDOW_SECONDS))
        end = time.monotonic()
        for done in range(windows):
            raise_if_cancelled(cancelled)
            end += seconds / windows
            time.sleep(max(0.0, end - time.monotonic()))
            if progress is not None:
                progress(INFER_STAGE, done + 1, windows)
        return Segmentation(
            labels=self._labels.copy(),
            native=study.native,
            label_scheme=options.label_scheme or self.card.label_scheme,
            volumes_ml=volumes_ml(self._labels, study.native.grid.voxel_ml),
            stage_seconds={INFER_STAGE: seconds},
            window_seconds=(seconds / windows,) * windows,
            model=self.card.name,
            model_version=self.card.version,
            weights_sha256=self.card.weights.sha256,
            backend=self.backend,
            device=self.device,
            tta={"mode": "none", "passes": 1, "averaged": "logits"},
            warnings=study.warnings,
            postprocess_report=(),
        )


def simulate_device(truth: Path, seconds: Path) -> None:
    """From now on, workers of this process and of its forks have no device."""

    def loader(_settings: Settings, _device: str) -> SegmenterFactory:
        def load(installed: InstalledBundle) -> WaitingSegmenter:
            return WaitingSegmenter(load_bundle(installed.folder).card, truth, seconds)

        return load

    process.bundle_loader = loader


def run_many(count: int) -> None:
    """Fork workers, and wait for them; SIGTERM is passed on."""
    children = [_forked(number) for number in range(count)]
    signal.signal(signal.SIGTERM, lambda *_: _tell(children, signal.SIGTERM))
    for child in children:
        os.waitpid(child, 0)


def _forked(number: int) -> int:
    child = os.fork()
    if child:
        return child
    os.environ[WORKER_ID_VARIABLE] = f"simulated-{number}-{os.getpid()}"
    os._exit(process.run_worker(read_settings({}), "cpu"))


def _tell(children: Sequence[int], number: int) -> None:
    for child in children:
        os.kill(child, number)


def main() -> None:
    """Run workers with the settings of the environment until SIGTERM."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.scale_worker", description=__doc__)
    made.add_argument("--count", type=int, required=True, help="how many")
    made.add_argument("--truth", type=Path, required=True, help="the label map of every answer")
    made.add_argument("--seconds", type=Path, required=True, help="file with the seconds of a job")
    values = made.parse_args()
    simulate_device(values.truth, values.seconds)
    read_settings({}).metrics_folder.mkdir(parents=True, exist_ok=True)
    run_many(values.count)


if __name__ == "__main__":
    main()
