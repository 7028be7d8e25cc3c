"""`create_app` puts the API together: routes, middleware, error table and lifespan.

Nothing is opened at import, nor by `create_app`. The lifespan opens the job database and the
storage; models are other processes' business (`service.worker`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial

from fastapi import FastAPI

from service.auth.headers import add_security_headers
from service.auth.setup import make_guard
from service.catalogue import Catalogue, installed_models
from service.foreign import ForeignPagesMiddleware
from service.metrics import ServiceMetrics
from service.middleware import ObservingMiddleware
from service.openapi import document
from service.problems import install_error_handlers
from service.routes import health, inspect, jobs, metrics, models, page, segment
from service.settings import Settings
from service.state import Service
from service.tracing import tracing
from service.version import release


def create_app(settings: Settings | None = None, *, catalogue: Catalogue | None = None) -> FastAPI:
    """A complete application; several can live in one process.

    Args:
        settings: read from the environment when None.
        catalogue: asked for the installed models; looks for bundles when None.
    """
    settings = settings or Settings()
    service = Service(settings, catalogue or installed_models, ServiceMetrics())
    app = FastAPI(
        title="segmamba",
        summary="Brain tumour segmentation from four MR contrasts.",
        description="For research; not a medical device. See docs/api.md for the promise.",
        version=release(),
        lifespan=_lifespan,
        docs_url=None,  # FastAPI's pages load scripts from a foreign host; ours is `service.page`
        redoc_url=None,
        # its own would export paths, query strings and exceptions' texts: see `service.tracing`
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = service
    for route in (health, models, inspect, segment, jobs, metrics, page):
        app.include_router(route.router)
    app.openapi = cache(partial(document, app))  # type: ignore[method-assign]
    install_error_handlers(app)
    app.add_middleware(
        ForeignPagesMiddleware,
        host=settings.host,
        hosts=settings.hosts,
        origins=settings.origins,
    )
    app.add_middleware(ObservingMiddleware, metrics=service.metrics)
    add_security_headers(app, tls_in_front=settings.tls_in_front, origins=settings.origins)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.start()
    settings = service.settings
    app.state.guard = make_guard(settings, host=settings.host, engine=service.engine.database)
    try:
        with tracing():
            yield
    finally:
        app.state.guard.close()
        service.stop()
