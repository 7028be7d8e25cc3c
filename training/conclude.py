"""The end of a run: its best weights judged, its report written, its bundle made."""

from __future__ import annotations

from model_core.postprocess import parse_steps
from training.card import why_no_bundle
from training.config import TrainConfig
from training.data.dataset import Dataset
from training.data.split import Split
from training.export import ExportOptions, export_bundle
from training.final import Court, judge
from training.judge.corrections import Corrections
from training.region_rules import rules_of
from training.request import RunRequest
from training.runs.report import write_report
from training.runs.reporter import Reporter
from training.runs.run_folder import RunFolder, write_json


def conclude(
    folder: RunFolder,
    config: TrainConfig,
    *,
    dataset: Dataset,
    split: Split,
    request: RunRequest,
    reporter: Reporter,
) -> None:
    """Predictions of the validation cases, ``final_metrics.json``, bundle (BraTS) and report."""
    if split.validation:
        reporter.say("final evaluation on the native grids …")
    court = Court(
        corrections=_corrections(config),
        keep=folder.predictions / "raw",
        console=reporter.console,
        say=reporter.say,
    )
    evaluation = judge(
        folder.path, dataset, split.validation, device=request.options.device, court=court
    )
    write_json(folder.final_metrics, evaluation.to_json())
    _export(folder, config, request, reporter)
    write_report(folder)
    show(reporter, f"report: {folder.report}")


def show(reporter: Reporter, message: str) -> None:
    """To the user's own screen: folders' names do not belong into a log that may travel."""
    if reporter.console is not None:
        reporter.console.print(message, markup=False)


def _corrections(config: TrainConfig) -> Corrections | None:
    """Those that the config names; never a file in the run's folder, found on these very cases."""
    if not config.postprocess:
        return None
    task = config.task
    steps = parse_steps(config.postprocess, rules=rules_of(task))
    return Corrections(steps=steps, labels=task.labels, regions=task.regions, dims=task.dims)


def _export(
    folder: RunFolder, config: TrainConfig, request: RunRequest, reporter: Reporter
) -> None:
    reason = why_no_bundle(config)
    if reason is not None:
        reporter.say(f"no bundle: {reason}")
        show(reporter, f"predict with: segmamba predict {folder.path} INPUT --out DIR")
        return
    target = request.export or folder.path / "bundle"
    options = ExportOptions(
        name=None if request.export else request.title, overwrite=request.export is None
    )
    export_bundle(folder, target, options=options)
    show(reporter, f"bundle written: {target}")
