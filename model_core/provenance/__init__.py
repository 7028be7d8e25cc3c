"""How a result came about, well enough to make it again: ``run.json``.

`manifest` is what is written and read, `record` fills it after a run, `inputs` finds the files of
a run again by their content, `compare` holds a second run against the first. No path, no name and
nothing from an image's header is kept.
"""

from model_core.provenance.manifest import RunManifest, read_manifest
from model_core.provenance.record import RunFacts, manifest_of

__all__ = ["RunFacts", "RunManifest", "manifest_of", "read_manifest"]
