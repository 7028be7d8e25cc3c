"""`create_app` puts the service together: routes, middleware, error table and lifespan.

Nothing is read or loaded at import, nor by `create_app`; the model is loaded by the lifespan, in
the background, so that the process answers ``/health/live`` at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import FastAPI

from service.bundles import bundle_loader, default_name, installed_cards
from service.errors import install_error_handlers
from service.metrics import ServiceMetrics
from service.middleware import ObservingMiddleware
from service.openapi import document
from service.registry import CardCatalogue, ModelRegistry, SegmenterFactory
from service.routes import health, metrics, models, segment
from service.schemas import Pointer
from service.settings import Settings
from service.state import Service

DISTRIBUTION: Final = "segmamba-service"
STOP_SECONDS: Final = 5.0


def create_app(
    settings: Settings | None = None,
    segmenter_factory: SegmenterFactory | None = None,
    *,
    catalogue: CardCatalogue | None = None,
) -> FastAPI:
    """A complete application; several can live in one process.

    Args:
        settings: read from the environment when None.
        segmenter_factory: makes a segmenter from a model's name; loads bundles when None.
        catalogue: the cards of installed models by name; looks for bundles when None.
    """
    settings = settings or Settings()
    service = Service(
        settings,
        ModelRegistry(
            default_name(settings),
            capacity=settings.max_models,
            factory=segmenter_factory or bundle_loader(settings),
            catalogue=catalogue or installed_cards,
        ),
        ServiceMetrics(),
    )
    app = FastAPI(
        title="segmamba",
        summary="Brain tumour segmentation from four MR contrasts.",
        description="For research; not a medical device. See docs/api.md for the promise.",
        version=_version(),
        lifespan=_lifespan,
        docs_url=None,  # those pages load scripts from a foreign host
        redoc_url=None,
    )
    app.state.service = service
    for route in (health, models, segment, metrics):
        app.include_router(route.router)
    app.add_api_route("/", _pointer, summary="What answers here", tags=["operation"])
    app.openapi = cache(partial(document, app))  # type: ignore[method-assign]
    install_error_handlers(app)
    app.add_middleware(ObservingMiddleware, metrics=service.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.start()
    try:
        yield
    finally:
        service.stop(STOP_SECONDS)


async def _pointer() -> Pointer:
    """Where everything is."""
    return Pointer(
        name="segmamba",
        version=_version(),
        openapi="/openapi.json",
        links={
            "segment": "/segment",
            "models": "/models",
            "live": "/health/live",
            "ready": "/health/ready",
            "metrics": "/metrics",
        },
    )


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"
