"""Small heads with labels whose volumes are known, and a reader of pages."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume
from model_core.labels import LabelArray
from model_core.preparation.rigid import Matrix
from model_core.types import Label
from tests.model_core.preparation.builders import acquired, head

CENTRE_MM = (-25.0, -20.0, 10.0)
"""Of the tumour, RAS+: on the patient's left."""


def ball(grid: Grid, centre_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    """The voxels whose centres lie in a ball."""
    index = np.stack(np.indices(grid.shape), axis=-1)
    places = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    inside: NDArray[np.bool_] = np.linalg.norm(places - np.array(centre_mm), axis=-1) <= radius_mm
    return inside


def ball_ml(radius_mm: float) -> float:
    return 4 / 3 * np.pi * radius_mm**3 / 1000


def tumour(grid: Grid, radius_mm: float, centre_mm: tuple[float, ...] = CENTRE_MM) -> Volume:
    """Oedema with an enhancing ball of half the radius in it, internal labels."""
    labels: LabelArray = np.zeros(grid.shape, np.uint8)
    labels[ball(grid, centre_mm, radius_mm)] = Label.ED
    labels[ball(grid, centre_mm, radius_mm / 2)] = Label.ET
    return Volume(labels, grid.affine)


def t1ce(movement: Matrix | None = None, grid: Grid | None = None) -> Volume:
    """A stripped head, moved and on another grid where that is asked for."""
    still = head("t1ce", skull=False)
    return still if movement is None else acquired(still, movement, grid)


@dataclass
class Page(HTMLParser):
    """What a page is made of."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open_tags):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[Image.Image]:
        return [opened(str(one["src"])) for one in self.all("img")]


def page_of(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open_tags
    return page


def opened(source: str) -> Image.Image:
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))
