"""Metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.state import service_of

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """The exposition in Prometheus' text format, or OpenMetrics where the scraper asks for it."""
    body, content_type = service_of(request).metrics.render(request.headers.get("accept"))
    return Response(body, headers={"Content-Type": content_type})
