"""The installed models and their cards."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.errors import UnknownResourceError
from service.openapi import problems
from service.schemas import ModelEntry, ModelList
from service.state import Service, service_of

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="Installed models")
def list_models(request: Request) -> ModelList:
    """Every model that the form option `model` can name, with its card."""
    service = service_of(request)
    return ModelList(default=service.registry.default, models=_entries(service))


@router.get("/{name}", summary="One model", responses=problems("not-found"))
def show_model(request: Request, name: str) -> ModelEntry:
    """One installed model with its card."""
    for entry in _entries(service_of(request)):
        if entry.name == name:
            return entry
    raise UnknownResourceError("No installed model has this name; GET /models lists them.")


def _entries(service: Service) -> list[ModelEntry]:
    loaded = service.registry.loaded()
    return [
        ModelEntry(
            name=name,
            default=name == service.registry.default,
            loaded=name in loaded,
            card=dict(card),
        )
        for name, card in sorted(service.registry.cards().items())
    ]
