"""What the API holds while it looks at studies: one of them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.form import SegmentForm, SpooledImage
from service.inspector import Inspector
from tests.service.fakes import make_settings


class CountingReader:
    """Looks at nothing, and counts how many ask at the same time."""

    def __init__(self) -> None:
        self.inside, self.most = 0, 0
        self._lock = threading.Lock()

    def inspect(self, _images: object) -> dict[str, Any]:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.05)
        with self._lock:
            self.inside -= 1
        return {}


def test_one_study_is_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, inspector = CountingReader(), Inspector(make_settings())
    monkeypatch.setattr(inspector, "_here", lambda: reader)
    image = SpooledImage(path=Path("t1"), sha256="", size=1)
    form = SegmentForm(images={"t1": image}, options={})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: inspector.inspect(form, {}), range(4)))
    assert found == [{}] * 4
    assert reader.most == 1
