"""What a label map says in numbers, and what speaks against believing it.

`statistics` measures lesions, `quality` raises flags. Neither decides anything: both are shown to a
person. NumPy only, no torch.
"""

from model_core.findings.flags import Flag, Severity
from model_core.findings.statistics import measure
from model_core.findings.structures import Statistics, to_csv

__all__ = ["Flag", "Severity", "Statistics", "measure", "to_csv"]
