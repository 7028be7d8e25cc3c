"""``segmamba submit``: hand studies to a service, wait for them, write the results here.

Beside it, ``segmamba jobs`` from its own file: this one is where the entry points look.
"""

from __future__ import annotations

from pathlib import Path

import typer

from model_core.cli import examples
from model_core.cli.options import (
    AllowFewerPasses,
    Image,
    Mirroring,
    Overwrite,
    Postprocess,
    Report,
    Scheme,
    StudyFolders,
    Window,
)
from service.client.cli_jobs import jobs
from service.client.options import (
    AsJson,
    Batch,
    Cache,
    CancelOnInterrupt,
    KeyFile,
    Output,
    Priority,
    Resume,
    Server,
    ServerModel,
    Wait,
)

__all__ = ["jobs", "submit"]


@examples(
    "segmamba submit BraTS2021_00006 --server https://segmamba.example -o seg.nii.gz",
    "segmamba submit BraTS2021/ -o results/ --report results/ --tta fast   (every study below)",
    "segmamba submit BraTS2021/ -o results/ --batch trial-7 --priority low --no-wait",
    "segmamba submit --resume results/segmamba-submit.json   (go on where it was left)",
    "SEGMAMBA_SERVER=http://127.0.0.1:8000 SEGMAMBA_KEY=… segmamba submit CASE -o seg.nii.gz",
)
def submit(  # noqa: PLR0913 - each parameter is an option of the command
    studies: StudyFolders = None,
    t1: Image = None,
    t1ce: Image = None,
    t2: Image = None,
    flair: Image = None,
    server: Server = None,
    key_file: KeyFile = None,
    output: Output = Path(),
    report: Report = None,
    model: ServerModel = None,
    tta: Mirroring = None,
    label_scheme: Scheme = None,
    postprocess: Postprocess = None,
    window: Window = None,
    allow_fewer_passes: AllowFewerPasses = None,
    priority: Priority = None,
    batch: Batch = None,
    cache: Cache = None,
    wait: Wait = True,
    resume: Resume = None,
    cancel_on_interrupt: CancelOnInterrupt = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Hand studies to a service, wait for their jobs and write the results here.

    A file beside the results remembers the run: after an interruption, `--resume` or the same
    command again goes on where it was, and no study is segmented twice. Ctrl-C leaves the jobs
    running; a second one cancels them. File names stay here: the service never sees them.

    Exit codes: 0 all done, 1 some failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from model_core.cli.outputs import Wish
    from service.client.job import SubmitOptions
    from service.client.plan import Asked, make_plan
    from service.client.session import Session

    options = SubmitOptions(
        model=model, tta=tta, label_scheme=label_scheme, postprocess=postprocess, window=window,
        allow_fewer_passes=allow_fewer_passes, priority=priority, batch=batch, cache=cache,
    )  # fmt: skip
    files = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair}
    wish = Wish(label_map=output, report=report)
    file, tasks = make_plan(
        Asked(
            studies=studies or [], files=files, wish=wish, options=options, server=server,
            resume=resume, overwrite=overwrite,
        )
    )  # fmt: skip
    session = Session(file, tasks, key_file=key_file, keep_file=resume is not None)
    raise typer.Exit(session.run(wait=wait, cancel_at_once=cancel_on_interrupt, as_json=as_json))
