"""What may be applied: every overlay, and those of them with a component that fits."""

from __future__ import annotations

from functools import cache

from tests.k8s.merging import Document
from tests.k8s.overlays import MANIFESTS, OVERLAYS, resolve

VARIANTS = {
    **{overlay.name: () for overlay in OVERLAYS},
    "cpu with s3": ("s3",),
    "scale with s3": ("s3",),
    "cpu with monitoring": ("monitoring",),
    "gpu with egress-https": ("egress-https",),
    "training with kueue": ("kueue",),
}
"""Names of components by the variant's name, whose first word is its overlay."""


def documents_of(variant: str) -> list[Document]:
    """The objects of a variant, as this resolver makes them."""
    return list(_documents(variant))


@cache
def _documents(variant: str) -> tuple[Document, ...]:
    documents = resolve(MANIFESTS / "overlays" / variant.split()[0])
    for component in VARIANTS[variant]:
        documents = resolve(MANIFESTS / "components" / component, documents)
    return tuple(documents)


def the(documents: list[Document], kind: str, name: str) -> Document:
    """One object of them."""
    (found,) = (d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found
