"""The façade: a bundle and a study in, a label map on the study's own grid out.

Four stages, timed one by one: *prepare* (orientation, spacing, brain box, normalisation), *infer*
(windows through the network, scores to labels), *restore* (back to the native grid; where the
spacing differs, scores to labels only here) and *postprocess* (the card's corrections). Nothing
global is set: gradients are off, the scan backend and the precision are chosen inside the call
only, for the calling thread. Where memory runs out in *infer*, that stage is tried again with less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Lock
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from model_core.checkpoints import Bundle, ModelCard
from model_core.cpu import memory_limit_bytes
from model_core.imaging.preprocess import Prepared, Preprocessing, prepare
from model_core.imaging.study import Study
from model_core.inference.accelerator import Accelerator, accelerator_for
from model_core.inference.adaptive import Chosen, choose_plan
from model_core.inference.blending import grown_to_hold
from model_core.inference.device import copied_to_cpu, usable_device
from model_core.inference.facts import full_width, rule_of
from model_core.inference.found import Found, doubts_about
from model_core.inference.ladder import Run, next_rung, used_up
from model_core.inference.lanes import lane_for
from model_core.inference.memory import NetworkSize, StudySize, limit_bytes
from model_core.inference.mirrored import BALLOT, Mirrored, against, dissent
from model_core.inference.retry import climb
from model_core.inference.segmentation import Segmentation, SegmentOptions
from model_core.inference.sliding_window import (
    INFER_STAGE,
    Watch,
    raise_if_cancelled,
    sliding_slabs,
    sliding_window,
)
from model_core.inference.stages import Stages
from model_core.inference.tta import mirror_passes
from model_core.inference.windows import WindowPlan
from model_core.labels import (
    LabelArray,
    labelled_box,
    no_labels_for_nan,
    reading,
    volumes_ml,
)
from model_core.ops import best_backend, resolve_backend, use_backend
from model_core.ops.blend import Rule, labels_of
from model_core.postprocess import StepReport, apply_steps
from model_core.precision import Precision, at_precision, resolve_precision
from model_core.types import CancelCheck, Progress, WindowChoice

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
        precision: ``float32``, ``bfloat16`` or, on a GPU, ``float16`` for the network's
            convolutions; None takes the environment's or what is fast (`model_core.precision`).
        memory_limit_mb: mebibytes that this process may hold while it segments; None takes what
            the operating system grants it.
        window_batch: windows handed to the network at once, for speed; fewer where memory is short.
        graphs: on CUDA, whether forward passes are recorded and replayed; None takes the
            environment's (``SEGMAMBA_CUDA_GRAPHS``), which is yes.

    Raises:
        OptionError: an unknown device, backend or precision, a limit that is no number of MiB, or
            a batch that is none.
        BackendError: the backend cannot run on this device.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        backend: str | None = None,
        precision: str | None = None,
        memory_limit_mb: int | None = None,
        window_batch: int = 1,
        graphs: bool | None = None,
    ) -> None:
        card = bundle.card
        self.card: ModelCard = card
        self._bundle = bundle
        self._device = usable_device(device)
        self._backend = resolve_backend(self._device, backend)
        self._precision: Precision = resolve_precision(self._device, precision)
        # A recorded pass must find its weights where they were: no cache of converted ones.
        arithmetic = partial(at_precision, self._device, self._precision, cache=False)
        self._accelerator = accelerator_for(self._device, arithmetic, graphs=graphs)
        # Only a CPU's memory is counted; a GPU's is its own, and PyTorch tells when it is full.
        self._on_cpu = self._device.type == "cpu"
        self._limit_mb = memory_limit_mb
        granted = memory_limit_bytes() if self._on_cpu else None
        self._limit = None if granted is None else limit_bytes(memory_limit_mb, granted)
        self._network = bundle.network.to(self._device).eval()
        self._rule = rule_of(self._network)
        plan = WindowPlan(
            window=card.window, overlap=card.overlap, tiling=card.tiling, batch=window_batch
        )
        self._plan = plan.rounded_up(self._rule.multiple)
        self._size = self._network_size()
        self._reading = reading(card.heads, card.outputs)
        self._turn = Lock()

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._device)

    @property
    def backend(self) -> str:
        """The scan backend that runs, for example ``"native"``."""
        return self._backend

    @property
    def precision(self) -> Precision:
        """The arithmetic of the network's convolutions, for example ``"bfloat16"``."""
        return self._precision

    @property
    def accelerator(self) -> Accelerator:
        """What runs the network: its memory, and whether passes are recorded."""
        return self._accelerator

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
            MemoryLimitError: the run would need more memory than it may use.
            KernelMemoryError: memory ran out, and so it did with every setting that needs less.
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
        window = tuple(min(2 * self._rule.multiple, side) for side in self._plan.window)
        noise = torch.randn(
            len(self.card.channels), *window, generator=torch.Generator().manual_seed(0)
        )
        began = perf_counter()
        with self._alone(None):
            sliding_window(self._one_pass, noise.to(self._device), plan=WindowPlan(window=window))
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
            votes = options.votes and len(passes) > 1
            chosen = self._choose(prepared, options.window or "card", votes=votes)
        first = Run(
            choice=chosen.choice,
            plan=chosen.plan,
            passes=passes,
            on_cpu=self._on_cpu,
            sums_on_host=self._on_cpu,
        )
        with stages.timed(INFER_STAGE):
            found, run = self._climb(prepared, first, options, stages)
        with stages.told("restore"):
            labels, *dissents = map(prepared.paste, self._on_box(found, prepared))
            agreement, window_seconds, device, backend = found[2:]
            del found, prepared
        with stages.told("postprocess"):
            labels, steps = self._correct(labels, study, options)
            volumes = volumes_ml(labels[labelled_box(labels)], study.native.grid.voxel_ml)
        return Segmentation(
            labels=labels,
            native=study.native,
            label_scheme=options.label_scheme or self.card.label_scheme,
            volumes_ml=volumes,
            stage_seconds=stages.seconds,
            window_seconds=window_seconds,
            model=self.card.name,
            model_version=self.card.version,
            weights_sha256=self.card.weights.sha256,
            backend=backend,
            device=device,
            precision=self.precision,
            window_choice=run.choice,
            window=run.plan.window,
            tta=run.mirroring(mode),
            warnings=(*study.warnings, *chosen.warnings, *run.warnings(), *doubts_about(labels)),
            postprocess_report=steps,
            memory_steps=run.steps,
            agreement=agreement,
            disagreement=against(labels, dissents) if dissents else None,
        )

    def _network_size(self) -> NetworkSize:
        return NetworkSize(
            family=self.card.family,
            width=full_width(self.card.network),
            parameters=self.card.weights.parameters,
            channels=len(self.card.channels),
            outputs=len(self.card.outputs),
            half=self._precision != "float32",
        )

    def _choose(self, prepared: Prepared, wanted: WindowChoice, *, votes: bool = False) -> Chosen:
        channels = self._size.outputs + votes * BALLOT
        return choose_plan(
            wanted,
            self._plan,
            self._rule,
            network=replace(self._size, outputs=channels),
            study=StudySize(
                native=prepared.native_grid.shape,
                box=prepared.box_grid.shape,
                image=prepared.model_grid.shape,
            ),
            limit=self._limit,
        )

    def _preprocessing(self) -> Preprocessing:
        return Preprocessing(
            channels=self.card.channels,
            orientation=self.card.orientation,
            spacing_mm=self.card.spacing_mm,
            normalisation=self.card.normalisation,
        )

    def _climb(
        self, prepared: Prepared, first: Run, options: SegmentOptions, stages: Stages
    ) -> tuple[Found, Run]:
        """What the network found, and the run that found it: the first one that has the memory."""

        def attempt(run: Run) -> Found:
            here = run.on_cpu == self._on_cpu
            infer = self._infer if here else self._infer_on_cpu
            return infer(prepared, run, stages, votes=options.votes)

        def following(run: Run) -> Run:
            raise_if_cancelled(stages.cancelled)
            allowed = options.allow_fewer_passes is True
            after = next_rung(run, self._plan, allow_fewer_passes=allowed)
            if after is None:
                raise used_up(run)
            return after

        return climb(attempt, first, following, self._device, self._accelerator.release)

    def _infer(self, prepared: Prepared, run: Run, stages: Stages, *, votes: bool = False) -> Found:
        """What the network finds on the model's grid."""

        def one_pass(batch: Tensor) -> Tensor:
            raise_if_cancelled(stages.cancelled)
            return self._one_pass(batch.to(self._device)).to(batch.device)

        outputs = len(self.card.outputs)
        predict = Mirrored(one_pass, run.passes, self._read, ballots=votes)
        seconds: list[float] = []
        watch = Watch(
            progress=stages.progress, cancelled=stages.cancelled, on_window=seconds.append
        )
        image = torch.from_numpy(prepared.image)
        if not run.sums_on_host:
            image = image.to(self._device)
        dissents: LabelArray | None = None
        lane = lane_for(self._accelerator, image)
        if prepared.resampled:
            answer = sliding_window(predict, image, plan=run.plan, lane=lane, **vars(watch)).cpu()
        else:
            answer = torch.empty(prepared.box_grid.shape, dtype=torch.uint8)
            if predict.ballots:
                dissents = np.empty((BALLOT, *prepared.box_grid.shape), np.uint8)

            def finished(rows: slice, sums: Tensor) -> None:
                answer[rows] = self._read(sums[:outputs])
                if dissents is not None:
                    dissents[:, rows] = dissent(sums[outputs:])

            sliding_slabs(predict, image, finished, plan=run.plan, watch=watch, lane=lane)
        agreement = predict.agreement()
        return Found(answer, dissents, agreement, tuple(seconds), self.device, self.backend)

    def _infer_on_cpu(
        self, prepared: Prepared, run: Run, stages: Stages, *, votes: bool = False
    ) -> Found:
        """The same by a copy of the model on the CPU, which is dropped afterwards.

        Raises:
            MemoryLimitError: this process may not hold that much.
        """
        spare = Segmenter(
            replace(self._bundle, network=copied_to_cpu(self._network)),
            backend=best_backend("cpu"),
            precision="float32" if self._precision == "float16" else self._precision,
            memory_limit_mb=self._limit_mb,
        )
        spare._choose(prepared, run.choice, votes=votes and len(run.passes) > 1)
        with use_backend(spare.backend):
            return spare._infer(prepared, run, stages, votes=votes)

    def _one_pass(self, batch: Tensor) -> Tensor:
        """Logits of one batch, in whatever type the precision leaves them."""
        return self._accelerator.run(self._network, batch)

    def _on_box(self, found: Found, prepared: Prepared) -> list[LabelArray]:
        """Labels on the brain box at the study's spacing, then the dissents, if votes are kept."""
        if not prepared.resampled:
            return [found.answer.numpy(), *(() if found.dissents is None else found.dissents)]
        outputs = len(self.card.outputs)
        kept = BALLOT if len(found.answer) > outputs else 0
        boxed = np.empty((1 + kept, *prepared.box_grid.shape), np.uint8)
        for rows, scores in prepared.scores_by_slab(found.answer.numpy()):
            slab = torch.from_numpy(scores)
            boxed[0, rows] = self._read(slab[:outputs]).numpy()
            if kept:
                boxed[1:, rows] = dissent(slab[outputs:])
        return list(boxed)

    def _read(self, sums: Tensor) -> Tensor:
        """Labels (X, Y, Z) from scores (K, X, Y, Z) or from their weighted sums."""
        how = self._reading
        rule: Rule = "nested" if how.nested else "highest"
        if how.nested and self.card.region_rule == "painted":
            sums = grown_to_hold(sums, how.channels)
        labels = labels_of(sums, rule, how.channels, how.labels)
        if labels is None:
            raise no_labels_for_nan()
        return labels

    def _correct(
        self, labels: LabelArray, study: Study, options: SegmentOptions
    ) -> tuple[LabelArray, tuple[StepReport, ...]]:
        """The card's steps on the box around all labels: outside it there is nothing to change."""
        if options.postprocess is False or not self.card.postprocess:
            return labels, ()
        box = labelled_box(labels)
        tumour = np.ascontiguousarray(labels[box])
        labels[box], steps = apply_steps(tumour, study.native.spacing_mm, self.card.postprocess)
        return labels, steps
