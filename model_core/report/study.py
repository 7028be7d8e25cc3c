"""The report of one label map: its lesions in pictures, its volumes, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.errors import InputError
from model_core.findings import Statistics, measure
from model_core.imaging.volume import Volume
from model_core.report.account import (
    Account,
    checksums_of,
    computing_of,
    facts_of,
    model_of,
    preparation_of,
    versions_of,
)
from model_core.report.page import render
from model_core.report.pictures import PICTURED, lesion_pictures
from model_core.report.words import LIMITS, remarks_of, volume_table
from model_core.types import Contrast


def study_report(
    labels: Volume,
    images: Mapping[Contrast, Volume],
    account: Account,
    *,
    statistics: Statistics | None = None,
) -> str:
    """The report of one study as HTML.

    Args:
        labels: internal labels, uint8.
        images: contrasts on the grid of the labels; T1ce and FLAIR are shown, others are not
            needed. Without any there are no pictures.
        account: what else is known.
        statistics: of the labels, where they are at hand; else they are measured.

    Raises:
        InputError: an image is not on the grid of the labels.
    """
    for contrast, image in images.items():
        check_on_grid(contrast, image, labels)
    statistics = statistics or measure(labels.array, labels.grid)
    return render("study", _content(labels, images, account, statistics))


def check_on_grid(contrast: Contrast, image: Volume, labels: Volume) -> None:
    """Refuse an image on another grid than the labels.

    Raises:
        InputError: it is on one.
    """
    if not image.grid.matches(labels.grid):
        raise InputError(
            contrast,
            expected=f"an image on the grid of the label map: {labels.grid.describe()}",
            got=image.grid.describe(),
            way_out="Hand over the image that the label map was made for.",
        )


def _content(
    labels: Volume, images: Mapping[Contrast, Volume], account: Account, statistics: Statistics
) -> dict[str, Any]:
    flags = account.flags()
    parts = statistics["WT"].components
    return {
        "facts": [*facts_of(account), ("Grid", labels.grid.describe())],
        "checked": flags is not None,
        "remarks": remarks_of(flags or ()),
        "warnings": account.warnings(),
        "volumes": volume_table(statistics),
        "pictures": lesion_pictures(images, labels, statistics),
        "unseen": max(0, parts - PICTURED),
        "preparation": preparation_of(account),
        "computing": computing_of(account),
        "model": model_of(account),
        "versions": versions_of(account),
        "checksums": checksums_of(account),
        "limits": LIMITS,
    }
