"""The bundle behind LitServe, as its documentation has it: one worker, a form in, a file out.

``python -m benchmarks.litserve_way PORT [restart]``. A request has no limit of time here, which is
kinder than its default. With *restart*, a worker that dies is started again; by default the whole
server ends with it.
"""

# no postponed annotations: LitServe reads those of `decode_request` as they stand
import sys
from typing import Any

import litserve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.bare import label_map, warm_segmenter
from model_core.types import CONTRASTS, Contrast


class Segment(litserve.LitAPI):
    """Four images to a label map."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - its interface
        """Load the model, in the worker."""
        self.segmenter, self.options = warm_segmenter()

    def decode_request(self, request: Request, **_: Any) -> dict[Contrast, bytes]:
        """The four files' bytes, of the form that it has read already."""
        form: Any = request
        return {contrast: form[contrast].file.read() for contrast in CONTRASTS}

    def predict(self, x: dict[Contrast, bytes], **_: Any) -> bytes:
        """Segment."""
        return label_map(self.segmenter, self.options, x)

    def encode_response(self, output: bytes, **_: Any) -> Response:
        """The label map's file."""
        return Response(output, media_type="application/gzip")


if __name__ == "__main__":
    server = litserve.LitServer(
        Segment(),
        accelerator="cpu",
        timeout=False,
        restart_workers=sys.argv[2:] == ["restart"],
        max_payload_size=256 * 2**20,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
