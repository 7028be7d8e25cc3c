"""The page for people: itself, its files, the examples for programs and the sample study.

Anybody may read these, key or not: they hold nothing of any study. What the page then asks for
goes through the same doors as everybody's requests.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from model_core.types import CONTRASTS, Contrast
from service.errors import NotAcceptableError, UnknownResourceError
from service.negotiation import choose_media_type
from service.page.assets import HOME, REFERENCE, Asset, asset
from service.page.sample import sample_file
from service.schemas import Pointer
from service.state import service_of
from service.version import release

router = APIRouter(tags=["operation"])

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",  # data: the font and the light maps inside NiiVue
        "connect-src 'self'",
        "worker-src 'self' blob:",  # NiiVue unpacks in a worker that it writes itself
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load and run: its own files; nothing inline, nothing from elsewhere."""
_HTML: Final = "text/html"
_JSON: Final = "application/json"
_SUFFIX: Final = ".nii.gz"
_HOME_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The pointer; the page for people where `Accept` likes HTML better.",
        "content": {_HTML: {"schema": {"type": "string"}}},
    }
}


@router.get("/", summary="What answers here", response_model=Pointer, responses=_HOME_RESPONSES)
def home(request: Request) -> Response:
    """Where everything is: for programs as JSON, for browsers as a page."""
    if _likes_html(request.headers.get("accept")):
        return _sent(request, HOME)
    return JSONResponse(_pointer().model_dump(), headers={"Vary": "Accept"})


@router.get("/docs", include_in_schema=False)
def reference(request: Request) -> Response:
    """Every route, from the OpenAPI document, and examples that tests run."""
    return _sent(request, REFERENCE)


@router.get("/page/sample/{name}", include_in_schema=False)
def sample(request: Request, name: str) -> Response:
    """One image of the sample study, ``t1.nii.gz`` and so on.

    The first request takes seconds, as it is drawn then; others meanwhile get 503.
    """
    contrast: Contrast | None = next((c for c in CONTRASTS if name == c + _SUFFIX), None)
    if contrast is None:
        raise UnknownResourceError(f"The sample study is {', '.join(CONTRASTS)}, as {_SUFFIX}.")
    path = sample_file(service_of(request).settings.data_dir, contrast)
    return FileResponse(
        path, media_type="application/gzip", headers={"Cache-Control": "max-age=3600"}
    )


@router.get("/page/{name:path}", include_in_schema=False)
def part(request: Request, name: str) -> Response:
    """One file of the page."""
    return _sent(request, name)


def _likes_html(accept: str | None) -> bool:
    try:
        return choose_media_type(accept, (_JSON, _HTML)) == _HTML
    except NotAcceptableError:
        return False


def _sent(request: Request, name: str) -> Response:
    """A file of the page, compressed where that is understood, or that it has not changed."""
    found = asset(name)
    if found is None:
        raise UnknownResourceError("The page has no such file.")
    compressed = "gzip" in request.headers.get("accept-encoding", "")
    headers = _headers(found, compressed=compressed)
    known = request.headers.get("if-none-match", "")
    if headers["ETag"] in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    if compressed:
        headers["Content-Encoding"] = "gzip"
    content = found.compressed if compressed else found.content
    return Response(content, headers=headers, media_type=found.media_type)


def _headers(found: Asset, *, compressed: bool) -> dict[str, str]:
    return {
        "Content-Security-Policy": POLICY,
        "Cache-Control": found.cache_control,
        "ETag": found.tag(compressed=compressed),
        "Vary": "Accept, Accept-Encoding",
    }


def _pointer() -> Pointer:
    return Pointer(
        name="segmamba",
        version=release(),
        openapi="/openapi.json",
        links={
            "inspect": "/inspect",
            "segment": "/segment",
            "jobs": "/jobs",
            "models": "/models",
            "live": "/health/live",
            "ready": "/health/ready",
            "metrics": "/metrics",
        },
    )
