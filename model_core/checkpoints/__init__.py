"""Weights and cards: the authors' files read, our bundles read and written, nothing executed."""

from model_core.catalogue import DEFAULT_MODEL, find_bundle, find_bundles
from model_core.checkpoints.bundle import (
    Bundle,
    import_upstream,
    load_bundle,
    read_card,
    save_bundle,
)
from model_core.checkpoints.card import CardDraft, ModelCard, TrainingRecord, WeightsRecord
from model_core.checkpoints.repository import add_bundle
from model_core.checkpoints.upstream import load_upstream

__all__ = [
    "DEFAULT_MODEL",
    "Bundle",
    "CardDraft",
    "ModelCard",
    "TrainingRecord",
    "WeightsRecord",
    "add_bundle",
    "find_bundle",
    "find_bundles",
    "import_upstream",
    "load_bundle",
    "load_upstream",
    "read_card",
    "save_bundle",
]
