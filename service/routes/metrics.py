"""Metrics for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from service.auth.guard import require
from service.auth.principal import Principal
from service.state import service_of

router = APIRouter(tags=["operation"])

MayScrape = Annotated[Principal, Depends(require("metrics"))]


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request, _caller: MayScrape) -> Response:
    """The exposition in Prometheus' text format, or OpenMetrics where the scraper asks for it."""
    body, content_type = service_of(request).metrics.render(request.headers.get("accept"))
    return Response(body, headers={"Content-Type": content_type})
