"""The process that listens stays light: no request makes it load torch or open an image."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_requests_of_every_kind_leave_torch_and_nibabel_out(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from starlette.testclient import TestClient
        from service.app import create_app
        from service.settings import Settings

        app = create_app(Settings(data_dir=sys.argv[1]))
        with TestClient(app, base_url="http://localhost") as client:
            files = {c: (c, c.encode() * 99) for c in ("t1", "t1ce", "t2", "flair")}
            job = client.post("/jobs", files=files)
            assert job.status_code == 202, job.text
            for path in ("/", "/models", "/metrics", "/openapi.json", "/jobs", "/health/ready"):
                assert client.get(path).status_code in (200, 503), path
            assert client.get(job.json()["links"]["self"]).json()["state"] == "queued"
            assert client.delete(job.json()["links"]["self"]).status_code == 202
        readers = {"nibabel", "numpy", "model_core.imaging"}
        heavy = ({"torch", "monai", "scipy"} | readers) & set(sys.modules)
        sys.exit(f"loaded: {heavy}" if heavy else 0)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
