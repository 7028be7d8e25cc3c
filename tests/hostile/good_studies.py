"""A hook of Schemathesis: some of the forms that it makes get images that can be segmented."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.hostile.traffic import good_images


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Put images in, where all four are there and the first has an even number of bytes.

    Half of those lose everything else that was made up for them, and can be segmented for sure.
    """
    images = good_images()
    if not isinstance(body, dict) or not images.keys() <= body.keys():
        return body
    size = len(str(body["t1"]))
    if size % 2:
        return body
    others = {name: value for name, value in body.items() if name != "model"} if size % 4 else {}
    return {**others, **images}
