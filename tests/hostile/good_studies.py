"""A hook of Schemathesis: some of the forms that it makes get images that can be segmented."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.hostile.traffic import good_images


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Put images in, where all four are there and one of them has an even number of bytes."""
    images = good_images()
    if not isinstance(body, dict) or not images.keys() <= body.keys() or len(str(body["t1"])) % 2:
        return body
    return {**{name: value for name, value in body.items() if name != "model"}, **images}
