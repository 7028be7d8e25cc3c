"""Whether the process lives, and whether it should get requests."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from service.openapi import problems
from service.schemas import Health
from service.state import service_of

router = APIRouter(prefix="/health", tags=["health"])

_READY_EXAMPLE: dict[str, Any] = {
    "content": {"application/json": {"example": {"status": "ready"}}},
}


@router.get("/live", summary="Is the process alive?")
async def live() -> Health:
    """Answer as long as the event loop turns, also while a segmentation runs."""
    return Health(status="live")


@router.get(
    "/ready",
    summary="Should this process get requests?",
    responses={200: _READY_EXAMPLE, **problems("not-ready", "shutting-down")},
)
def ready(request: Request) -> Health:
    """Answer 200 while a worker has its model warm and takes jobs, else 503 with the reason."""
    reason = service_of(request).not_ready()
    if reason is not None:
        raise reason
    return Health(status="ready")
