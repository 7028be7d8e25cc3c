"""The examples that the page shows to programs run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.page.assets import STATIC
from tests.page.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Examples(HTMLParser):
    """The text of every ``data-run``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.kind: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.kind = dict(attributes).get("data-run")
        if self.kind:
            self.found.append((self.kind, ""))

    def handle_endtag(self, tag: str) -> None:
        self.kind = None

    def handle_data(self, data: str) -> None:
        if self.kind:
            self.found[-1] = (self.kind, self.found[-1][1] + data)


def test_the_examples_run(site: Site, tmp_path: Path) -> None:
    examples = Examples()
    examples.feed((STATIC / "docs.html").read_text(encoding="utf-8"))
    assert [kind for kind, _ in examples.found] == ["sh"] * 4 + ["python"]
    environment = os.environ | {"SERVER": site.address, "SEGMAMBA_KEY": ""}
    said = []
    for kind, text in examples.found:
        command = (
            ["bash", "-eo", "pipefail", "-c", text]
            if kind == "sh"
            else [sys.executable, "-c", text]
        )
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, text + done.stderr
        said.append(done.stdout)
    assert '"contrast":"t1ce"' in said[1].replace(" ", "")
    assert "x-segmamba-volumes-ml" in said[2].lower()
    assert '"state":"succeeded"' in said[3].replace(" ", "")
    assert said[4].startswith("succeeded {'NCR': ")
    assert (tmp_path / "segmentation.nii.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert (tmp_path / "results.zip").read_bytes()[:2] == b"PK"
