"""The corrections a model card may ask for: each a pure function of a label map.

Every step takes internal labels (X, Y, Z) uint8, the voxel size in millimetres and the rules of
the regions (`GLIOMA` unless given: 0 background, 1 NCR, 2 ED, 3 ET), changes none, and returns a
new map. A *component* is a maximal set of connected voxels of a region (WT, TC or ET);
connectivity 6 joins voxels by faces, 18 by edges too, 26 by corners too. A picture (1, H, W) has
the neighbours of its plane.

What is taken out of a region goes to the label that encloses it, so that the outer regions keep
their shape: out of ET → NCR, out of TC → ED, out of WT → background. Only a step on WT, or on a
region of other rules that nothing encloses, writes background; `keep_largest_of`, nnU-Net's own
correction, does so everywhere.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model_core.components import Connectivity, bounding_box, connected_components
from model_core.errors import OptionError
from model_core.labels import LabelArray, Mask
from model_core.postprocess.regions import GLIOMA, RegionRules
from model_core.types import Spacing

Millimetres3 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Voxels = Annotated[int, Field(gt=0)]
Names = Annotated[list[str], Field(min_length=1)]


def remove_small_components(
    labels: LabelArray,
    spacing_mm: Spacing,
    rules: RegionRules = GLIOMA,
    *,
    region: str = "WT",
    min_mm3: Millimetres3 | None = None,
    min_voxels: Voxels | None = None,
    connectivity: Connectivity = 26,
) -> LabelArray:
    """Take components smaller than a threshold out of a region.

    Give exactly one of `min_mm3` and `min_voxels`; a component of just that size stays. Leaving
    voxels become background (WT), ED (TC) or NCR (ET).

    Never: turns tumour into background unless the region is WT; touches a component of the
    threshold's size or more; adds a voxel to any region.

    Raises:
        OptionError: none or both of the thresholds, or no such region.
    """
    threshold = _threshold_voxels(spacing_mm, min_mm3, min_voxels)
    components, sizes = _components(rules.mask(labels, region), connectivity)
    return _replaced(labels, (sizes < threshold)[components], rules.rule(region).leaving)


def keep_largest(
    labels: LabelArray,
    spacing_mm: Spacing,
    rules: RegionRules = GLIOMA,
    *,
    region: str = "WT",
    connectivity: Connectivity = 26,
) -> LabelArray:
    """Take all components but the largest out of a region.

    Among equals the first in array order stays. Leaving voxels become background (WT), ED (TC)
    or NCR (ET). Multifocal tumours exist: use it only where validation showed a gain.

    Never: empties a region; turns tumour into background unless the region is WT.
    """
    del spacing_mm  # sizes are compared, not measured
    components, sizes = _components(rules.mask(labels, region), connectivity)
    lost = np.ones(len(sizes), dtype=np.bool_)
    lost[0] = False  # outside the region
    lost[int(sizes[1:].argmax()) + 1 if len(sizes) > 1 else 0] = False
    return _replaced(labels, lost[components], rules.rule(region).leaving)


def keep_largest_of(
    labels: LabelArray,
    spacing_mm: Spacing,
    rules: RegionRules = GLIOMA,
    *,
    names: Names | None = None,
) -> LabelArray:
    """Turn all components but the largest of some labels together into background.

    As nnU-Net does (``remove_all_but_largest_component_from_segmentation``), for networks that come
    from there: neighbours are all 26, among equals all stay, and leaving voxels become background
    even inside the tumour. `names` are labels (NCR, ED, ET), by default all of them.

    Never: removes a component of the largest size; touches another label.

    Raises:
        OptionError: no such label.
    """
    del spacing_mm  # sizes are compared, not measured
    components, sizes = _components(rules.mask_of(labels, names), connectivity=26)
    return _replaced(labels, (sizes < sizes[1:].max(initial=0))[components], 0)


def relabel_small_et(
    labels: LabelArray,
    spacing_mm: Spacing,
    rules: RegionRules = GLIOMA,
    *,
    min_mm3: Millimetres3 | None = None,
    min_voxels: Voxels | None = None,
) -> LabelArray:
    """Turn all ET into NCR where the whole of it is smaller than a threshold.

    Give exactly one of `min_mm3` and `min_voxels`. A challenge convention (F. Isensee et al.,
    arXiv 2011.00848): a few false ET voxels in a case without any cost its whole ET score. Its
    authors advise against it in clinical use, where a small enhancing focus matters.

    Never: writes background; changes TC or WT; changes a part of ET only.

    Raises:
        OptionError: none or both of the thresholds, or rules without a region ET.
    """
    threshold = _threshold_voxels(spacing_mm, min_mm3, min_voxels)
    et = rules.mask(labels, "ET")
    if np.count_nonzero(et) >= threshold:
        return labels.copy()
    return _replaced(labels, et, rules.rule("ET").leaving)


def fill_holes(
    labels: LabelArray,
    spacing_mm: Spacing,
    rules: RegionRules = GLIOMA,
    *,
    region: str = "WT",
    max_mm3: Millimetres3 | None = None,
) -> LabelArray:
    """Fill cavities that a region encloses completely (no way out through voxel faces).

    Holes of WT become ED, holes of TC (background or ED inside the core) become NCR; with
    `max_mm3`, only holes up to that volume. ET has no such step: a dark centre inside an
    enhancing rim is necrosis, not a hole.

    Never: changes a voxel that already belongs to the region; fills a cavity that is open to the
    outside or reaches the edge of the volume; writes background or ET; changes a structure that
    does not enclose the region.

    Raises:
        OptionError: no such region, or one without holes to fill.
    """
    filled = labels.copy()
    rule = rules.rule(region)
    if rule.joining is None:
        raise _no_holes(rules, region)
    mask = rules.mask(labels, region)
    if not mask.any():
        return filled
    box = bounding_box(mask)
    holes, sizes = _components(~mask[box], connectivity=6)
    limit = math.inf if max_mm3 is None else max_mm3 / math.prod(spacing_mm)
    chosen = sizes <= limit
    in_plane = rules.flat and labels.shape[0] == 1
    chosen[_on_faces(holes, in_plane=in_plane)] = False  # what reaches the region's box is open
    chosen[0] = False
    filled[box][chosen[holes] & np.isin(labels[box], rule.fillable)] = rule.joining
    return filled


def _no_holes(rules: RegionRules, region: str) -> OptionError:
    fillable = [name for name, rule in rules.regions.items() if rule.joining is not None]
    return OptionError(
        "region",
        expected=f"a region with holes to fill: {', '.join(fillable)}",
        got=repr(region),
        way_out="What another label encloses inside it is not a hole.",
    )


def _threshold_voxels(spacing_mm: Spacing, min_mm3: float | None, min_voxels: int | None) -> float:
    """The threshold in voxels, whichever way it was given."""
    if (min_mm3 is None) == (min_voxels is None):
        raise OptionError(
            "min_mm3",
            expected="exactly one of min_mm3 and min_voxels",
            got="neither" if min_mm3 is None else "both",
            way_out="min_mm3 keeps its meaning at every voxel size; prefer it.",
        )
    if min_voxels is not None:
        return min_voxels
    assert min_mm3 is not None
    return min_mm3 / math.prod(spacing_mm)


def _components(
    mask: Mask, connectivity: Connectivity
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Component ids (0 outside) and the voxels of each; outside counts as endless."""
    components, count = connected_components(mask, connectivity)
    sizes = np.bincount(components[mask], minlength=count + 1)
    sizes[0] = np.iinfo(sizes.dtype).max
    return components, sizes


def _on_faces(components: NDArray[np.integer], *, in_plane: bool) -> NDArray[np.integer]:
    """The ids that occur on the six faces of the array; on four if it is a plane (1, H, W)."""
    axes = (1, 2) if in_plane else (0, 1, 2)
    faces = [components.take(edge, axis=axis).ravel() for axis in axes for edge in (0, -1)]
    return np.unique(np.concatenate(faces))


def _replaced(labels: LabelArray, where: Mask, label: int) -> LabelArray:
    changed = labels.copy()
    changed[where] = label
    return changed
