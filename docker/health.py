"""Whether the service in this container lives; `health.py ready`: whether it takes studies."""

from __future__ import annotations

import os
import sys
import urllib.request

port = os.environ.get("SEGMAMBA_PORT", "8000")
question = sys.argv[1] if len(sys.argv) > 1 else "live"
urllib.request.urlopen(f"http://127.0.0.1:{port}/health/{question}", timeout=4).close()
