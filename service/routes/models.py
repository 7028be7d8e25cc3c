"""The installed models with their versions and cards."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request

from model_core.catalogue import InstalledBundle
from service.catalogue import States, serving, state_of
from service.errors import UnknownResourceError
from service.openapi import problems
from service.schemas import ModelEntry, ModelList, ModelVersion
from service.state import Service, service_of

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="Installed models")
def list_models(request: Request) -> ModelList:
    """Every model that the form option `model` can name, with its versions and its card."""
    service = service_of(request)
    return ModelList(default=service.default_model, models=_entries(service))


@router.get("/{name}", summary="One model", responses=problems("not-found"))
def show_model(request: Request, name: str) -> ModelEntry:
    """One installed model with its versions and its card."""
    for entry in _entries(service_of(request)):
        if entry.name == name:
            return entry
    raise UnknownResourceError("No installed model has this name; GET /models lists them.")


def _entries(service: Service) -> list[ModelEntry]:
    states = service.model_states()
    return [
        _entry(versions, states, default=name == service.default_model)
        for name, versions in sorted(service.catalogue().items())
    ]


def _entry(versions: Sequence[InstalledBundle], states: States, *, default: bool) -> ModelEntry:
    shown = [_version(one, states) for one in versions]
    meant = serving(versions, states)
    now = _version(meant, states)
    return ModelEntry(
        name=meant.name,
        default=default,
        loaded=any(one.loaded for one in shown),
        version=meant.version,
        state=now.state,
        memory_bytes=now.memory_bytes,
        versions=shown,
        card=dict(meant.card),
    )


def _version(bundle: InstalledBundle, states: States) -> ModelVersion:
    state = state_of(bundle, states)
    return ModelVersion(
        version=bundle.version,
        state=state,
        loaded=state == "ready",
        memory_bytes=None if bundle.fault is not None else bundle.weights_bytes,
    )
