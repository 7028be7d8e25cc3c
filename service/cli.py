"""``segmamba serve``: API and workers on one machine; ``api`` and ``worker``: each for itself."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from model_core.errors import OptionError

if TYPE_CHECKING:
    from service.settings import Settings

LAST_WINDOW_SECONDS: Final = 5
"""For the answers that are on their way when the API is asked to leave."""

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[
    int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
]
Model = Annotated[str | None, typer.Option(help="Default model.", show_default="the bundled one")]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1 …; with commas: one worker each.",
        show_default="auto: every GPU, else the CPU",
    ),
]
Backend = Annotated[
    str | None, typer.Option(help="Scan backend to force.", show_default="the best one")
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Arithmetic of the convolutions: auto, float32, bfloat16 or float16.",
        show_default="auto",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads of the network.", show_default="the processors granted"),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        metavar="MB",
        help="MiB that a worker may hold while it segments.",
        show_default="what the system grants",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        help="Folder of jobs, waiting images and results.",
        show_default="segmamba in the user's state folder",
    ),
]
JobsUrl = Annotated[
    str | None,
    typer.Option(
        help="Job database: postgresql://… for several machines.",
        show_default="an SQLite file in the data folder",
    ),
]


def serve(  # noqa: PLR0913 - options of a command
    host: Host = None,
    port: Port = None,
    model: Model = None,
    device: Device = None,
    backend: Backend = None,
    precision: Precision = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    data_dir: DataDir = None,
    jobs_url: JobsUrl = None,
) -> None:
    """Answer segmentation requests over HTTP until stopped (SIGTERM or Ctrl+C).

    Runs the API and one worker for each device as processes of their own, and replaces those that
    die. A study that was taken survives all of them. Every other setting comes from the
    environment, prefix SEGMAMBA_; an option given here wins.
    """
    given = _present(
        host=host, port=port, model=model, device=device, backend=backend, precision=precision,
        threads=threads, memory_limit_mb=memory_limit, data_dir=data_dir, jobs_url=jobs_url,
    )  # fmt: skip
    settings = read_settings(given)
    _hand_down(given)
    raise typer.Exit(_supervise(settings))


def api(
    host: Host = None,
    port: Port = None,
    model: Model = None,
    data_dir: DataDir = None,
    jobs_url: JobsUrl = None,
    listener: Annotated[
        int | None, typer.Option(hidden=True, help="Descriptor of a listening socket.")
    ] = None,
) -> None:
    """Run the HTTP interface alone; workers run elsewhere on the same job database.

    Several may run side by side. Without PostgreSQL, all must be on one machine.
    """
    given = _present(host=host, port=port, model=model, data_dir=data_dir, jobs_url=jobs_url)
    run_api(read_settings(given), listener)


def worker(
    model: Model = None,
    device: Device = None,
    backend: Backend = None,
    precision: Precision = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    data_dir: DataDir = None,
    jobs_url: JobsUrl = None,
) -> None:
    """Run one worker: it keeps its model warm and takes jobs from the queue.

    SIGTERM lets it finish its job within SEGMAMBA_GRACE_SECONDS; after that the job goes back to
    the queue. A second SIGTERM ends it at once.
    """
    from service.devices import worker_devices

    given = _present(
        model=model, device=device, backend=backend, precision=precision, threads=threads,
        memory_limit_mb=memory_limit, data_dir=data_dir, jobs_url=jobs_url,
    )  # fmt: skip
    settings = read_settings(given)
    _check_model(settings)
    _check_storage(settings)
    settings.metrics_folder.mkdir(parents=True, exist_ok=True)
    # before the library is imported: it decides then where numbers live
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(settings.metrics_folder))
    from service.worker.process import run_worker

    # a thread of the engine may wait for a job that was handed back: no normal exit waits for it
    os._exit(run_worker(settings, worker_devices(settings.device)[0]))


def read_settings(given: dict[str, Any]) -> Settings:
    """Settings from the environment, overridden by what was given.

    Raises:
        OptionError: a value is outside its range; names the setting.
    """
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionError(
            "SEGMAMBA_" + "_".join(map(str, first["loc"])).upper(),
            expected=first["msg"],
            got=repr(first["input"]),
            way_out="See docs/how-to/serve.md for the settings.",
        ) from None


def run_api(settings: Settings, descriptor: int | None = None) -> None:
    """Serve until a signal comes; jobs go on in their workers.

    Args:
        settings: of the service.
        descriptor: of a listening socket that a supervisor has opened and announced.

    Raises:
        OptionError: the default model is not installed, the storage is not to be used, the address
            cannot be listened on, or traces are asked for and cannot be sent.
    """
    import uvicorn

    from model_core.allocator import give_back_freed_memory
    from service.app import create_app
    from service.observability import configure_logging
    from service.parent import leave_with_parent
    from service.server import DrainingServer
    from service.tracing import check_tracing

    check_tracing()
    _check_model(settings)
    _check_doors(settings)
    _check_storage(settings)
    configure_logging(settings.log_level)
    give_back_freed_memory()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # it would log paths and query strings; the service has its own
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace_seconds) + LAST_WINDOW_SECONDS,
    )
    leave_with_parent()
    if descriptor is None:
        listener = listen(settings.host, settings.port)
        _announce(listener)
    else:
        listener = socket.socket(fileno=descriptor)
    with listener:
        DrainingServer(config, app.state.service).run([listener])


def _supervise(settings: Settings) -> int:
    from service.devices import worker_devices
    from service.jobs.engine import JobEngine
    from service.observability import configure_logging
    from service.supervisor import Supervisor
    from service.tracing import check_tracing

    check_tracing()
    _check_model(settings)
    _check_doors(settings)
    _check_storage(settings)
    configure_logging(settings.log_level)
    engine = JobEngine(settings.database_url)
    for old in settings.metrics_folder.glob("*.db"):
        old.unlink()  # of processes that are gone; counters begin anew, as scrapers expect
    supervisor = Supervisor(
        engine.store,
        grace_seconds=settings.grace_seconds,
        silence_seconds=settings.silence_seconds,
    )
    # opened here, so that the port stays and callers wait while a killed API is replaced
    with listen(settings.host, settings.port) as listener:
        _announce(listener)
        number = listener.fileno()
        supervisor.add("api", ["api", "--listener", str(number)], pass_on=(number,))
        for worker, device in enumerate(worker_devices(settings.device)):
            supervisor.add(f"worker{worker}", ["worker", "--device", device], takes_jobs=True)
        return supervisor.run()


def _announce(listener: socket.socket) -> None:
    typer.echo(f"Listening on {_url(listener)} (Ctrl+C stops); ready when /health/ready says so")


def _check_model(settings: Settings) -> None:
    from service.catalogue import check_installed, default_name

    check_installed(default_name(settings))


def _check_doors(settings: Settings) -> None:
    """Refuse a start that would let everybody in, or nobody; the tables are there afterwards."""
    from service.auth.setup import make_guard
    from service.jobs.database import open_database
    from service.jobs.store import JobStore

    database = open_database(settings.database_url)
    try:
        JobStore(database).create_tables()
        make_guard(settings, host=settings.host, engine=database).close()
    finally:
        database.dispose()


def _check_storage(settings: Settings) -> None:
    """Refuse a start that would take studies and have no place for them."""
    from service.jobs.blobs import BlobStore

    BlobStore(settings.storage_url, settings.spool).check()


def _hand_down(given: dict[str, Any]) -> None:
    """Options of this command become the environment of its children."""
    for name, value in given.items():
        os.environ[f"SEGMAMBA_{name.upper()}"] = str(value)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OptionError: the address is not ours or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # else an answer in two pieces waits for the caller's delayed acknowledgement, 40 ms
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise OptionError(
            "--host or --port",
            expected="an address of this machine and a free port",
            got=f"{host} and {port} ({error.strerror or error})",
            way_out="Choose another port; 0 takes any free one.",
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _present(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
