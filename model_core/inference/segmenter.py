"""The façade: a bundle and a study in, a label map on the study's own grid out.

Four stages, timed one by one: *prepare* (orientation, spacing, brain box, normalisation), *infer*
(windows through the network), *restore* (scores to labels, back to the native grid) and
*postprocess* (the card's corrections). Nothing global is set: gradients are off and the scan
backend is chosen inside the call only, for the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter

import torch
from torch import Tensor

from model_core.checkpoints import Bundle, ModelCard
from model_core.errors import OptionError
from model_core.imaging.preprocess import Prepared, Preprocessing, prepare
from model_core.imaging.study import Study
from model_core.inference.segmentation import Segmentation, SegmentOptions
from model_core.inference.sliding_window import INFER_STAGE, raise_if_cancelled, sliding_window
from model_core.inference.stages import Stages
from model_core.inference.tta import AVERAGED, Flip, mirror_passes, predict_mirrored
from model_core.inference.windows import WindowPlan
from model_core.labels import LabelArray, decode_scores, volumes_ml
from model_core.ops import resolve_backend, use_backend
from model_core.postprocess import StepReport, apply_steps
from model_core.types import CancelCheck, Progress, Tta

__all__ = ["SegmentOptions", "Segmentation", "Segmenter"]

_LOCK_POLL_SECONDS = 0.1


class Segmenter:
    """Runs one model on one device.

    Safe to share between threads: one study runs at a time, the others wait their turn (a waiting
    call can be cancelled too). Takes over the bundle's network: it is moved to the device.

    Args:
        bundle: the model with its card.
        device: a PyTorch device name, e.g. ``"cpu"`` or ``"cuda"``.
        backend: a scan backend by name; None takes the environment's or the best available.

    Raises:
        OptionError: an unknown device or backend.
        BackendError: the backend cannot run on this device.
    """

    def __init__(self, bundle: Bundle, *, device: str = "cpu", backend: str | None = None) -> None:
        card = bundle.card
        self.card: ModelCard = card
        self._device = _usable_device(device)
        self._backend = resolve_backend(self._device, backend)
        self._network = bundle.network.to(self._device).eval()
        self._multiple: int = getattr(self._network, "size_multiple", 1)
        plan = WindowPlan(window=card.window, overlap=card.overlap)
        self._plan = plan.rounded_up(self._multiple)
        self._turn = Lock()

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._device)

    @property
    def backend(self) -> str:
        """The scan backend that runs, for example ``"native"``."""
        return self._backend

    def segment(
        self,
        study: Study,
        options: SegmentOptions | None = None,
        *,
        progress: Progress | None = None,
        cancelled: CancelCheck | None = None,
    ) -> Segmentation:
        """Segment one study.

        Args:
            study: the contrasts on one grid.
            options: what the caller chooses; the card decides the rest.
            progress: told ``(stage, done, total)`` from the calling thread, for every stage.
            cancelled: asked between stages and before every forward pass.

        Returns:
            Labels on the grid of `study.native`, with their account.

        Raises:
            Cancelled: `cancelled` answered yes; nothing is kept.
            NumericalError: the network answered NaN or infinity.
            ImageError: the study cannot be prepared for this model.
        """
        options = options or SegmentOptions()
        with self._alone(cancelled):
            return self._segment(study, options, Stages(progress, cancelled))

    def warm_up(self) -> float:
        """Run the real network once on a small window; returns the seconds it took.

        Raises:
            NumericalError: the network answers NaN or infinity.
        """
        # Two positions a side at the deepest level: instance norm needs more than one.
        window = tuple(min(2 * self._multiple, side) for side in self._plan.window)
        noise = torch.randn(
            len(self.card.channels), *window, generator=torch.Generator().manual_seed(0)
        )
        began = perf_counter()
        with self._alone(None):
            sliding_window(self._network, noise.to(self._device), plan=WindowPlan(window=window))
        return perf_counter() - began

    @contextmanager
    def _alone(self, cancelled: CancelCheck | None) -> Iterator[None]:
        """Wait for the turn, then compute without gradients and with the chosen backend."""
        while not self._turn.acquire(timeout=_LOCK_POLL_SECONDS):
            raise_if_cancelled(cancelled)
        try:
            with torch.inference_mode(), use_backend(self._backend):
                yield
        finally:
            self._turn.release()

    def _segment(self, study: Study, options: SegmentOptions, stages: Stages) -> Segmentation:
        mode = self.card.tta if options.tta is None else options.tta
        passes = mirror_passes(mode, self.card.mirror_axes)
        with stages.told("prepare"):
            prepared = prepare(study, self._preprocessing())
        with stages.timed(INFER_STAGE):
            scores, window_seconds = self._infer(prepared, passes, stages)
        with stages.told("restore"):
            labels = self._restore(scores, prepared)
            del scores, prepared
        with stages.told("postprocess"):
            labels, steps = self._correct(labels, study, options)
        return Segmentation(
            labels=labels,
            native=study.native,
            label_scheme=options.label_scheme or self.card.label_scheme,
            volumes_ml=volumes_ml(labels, study.native.grid.voxel_ml),
            stage_seconds=stages.seconds,
            window_seconds=window_seconds,
            model=self.card.name,
            model_version=self.card.version,
            weights_sha256=self.card.weights.sha256,
            backend=self.backend,
            device=self.device,
            tta=_describe_tta(mode, passes),
            warnings=(*study.warnings, *_doubts(labels)),
            postprocess_report=steps,
        )

    def _preprocessing(self) -> Preprocessing:
        return Preprocessing(
            channels=self.card.channels,
            orientation=self.card.orientation,
            spacing_mm=self.card.spacing_mm,
            normalisation=self.card.normalisation,
        )

    def _infer(
        self, prepared: Prepared, passes: tuple[Flip, ...], stages: Stages
    ) -> tuple[Tensor, tuple[float, ...]]:
        """Scores (K, X, Y, Z) on the model's box grid, and the seconds of each window."""

        def one_pass(batch: Tensor) -> Tensor:
            raise_if_cancelled(stages.cancelled)
            scores: Tensor = self._network(batch)
            return scores

        seconds: list[float] = []
        scores = sliding_window(
            lambda batch: predict_mirrored(one_pass, batch, passes),
            torch.from_numpy(prepared.image).to(self._device),
            plan=self._plan,
            progress=stages.progress,
            cancelled=stages.cancelled,
            on_window=seconds.append,
        )
        return scores.cpu(), tuple(seconds)

    def _restore(self, scores: Tensor, prepared: Prepared) -> LabelArray:
        """Labels on the native grid. Where the spacing differs, scores are interpolated first."""
        boxed = prepared.scores_on_box(scores.numpy())
        return prepared.paste(decode_scores(boxed, self.card.heads, self.card.outputs))

    def _correct(
        self, labels: LabelArray, study: Study, options: SegmentOptions
    ) -> tuple[LabelArray, tuple[StepReport, ...]]:
        if options.postprocess is False or not self.card.postprocess:
            return labels, ()
        return apply_steps(labels, study.native.spacing_mm, self.card.postprocess)


def _usable_device(name: str) -> torch.device:
    """The device, if PyTorch can really use it here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts for a build without CUDA
        raise OptionError(
            "device",
            expected="a device that PyTorch can use here, e.g. cpu or cuda",
            got=repr(name),
            way_out="Use cpu, or install a PyTorch build and driver for the device.",
        ) from error
    return device


def _describe_tta(mode: Tta, passes: tuple[Flip, ...]) -> dict[str, str | int]:
    return {"mode": mode, "passes": len(passes), "averaged": AVERAGED}


def _doubts(labels: LabelArray) -> tuple[str, ...]:
    if labels.any():
        return ()
    return ("No tumour was found. Check that the contrasts are not mixed up.",)
