"""``segmamba serve``: run the HTTP service in this process."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from model_core.errors import OptionError

if TYPE_CHECKING:
    from service.settings import Settings

LAST_WINDOW_SECONDS: Final = 5
"""After the grace period the running window may end and its answer be sent."""


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Default model.", show_default="the bundled one")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1 …", show_default="auto: a GPU if there is one"),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Scan backend to force.", show_default="the best one")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Arithmetic of the convolutions: auto, float32 or bfloat16.", show_default="auto"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of the network.", show_default="the processors granted"),
    ] = None,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            help="MiB that the process may hold while it segments.",
            show_default="what the system grants",
        ),
    ] = None,
) -> None:
    """Answer segmentation requests over HTTP until stopped (SIGTERM or Ctrl+C).

    Every other setting comes from the environment, prefix SEGMAMBA_; an option given here wins.
    """
    given = {
        "host": host,
        "port": port,
        "model": model,
        "device": device,
        "backend": backend,
        "precision": precision,
        "threads": threads,
        "memory_limit_mb": memory_limit,
    }
    run_server(read_settings(_present(given)))


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


def run_server(settings: Settings) -> None:
    """Serve until a signal comes; then drain, wait for the running segmentation, and leave.

    Raises:
        OptionError: the default model is not installed, or the address cannot be listened on.
    """
    import uvicorn

    from model_core.allocator import keep_freed_memory
    from service.app import create_app
    from service.bundles import check_installed, default_name
    from service.observability import configure_logging
    from service.server import DrainingServer

    check_installed(default_name(settings))
    configure_logging(settings.log_level)
    keep_freed_memory()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # it would log paths and query strings; the service has its own
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace_seconds) + LAST_WINDOW_SECONDS,
    )
    with listen(settings.host, settings.port) as listener:
        typer.echo(
            f"Listening on {_url(listener)} (Ctrl+C stops); ready when /health/ready says so"
        )
        DrainingServer(config, app.state.service).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OptionError: the address is not ours or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
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


def _present(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
