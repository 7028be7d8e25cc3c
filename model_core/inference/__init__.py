"""From an image and a network to a label map: windows, blending, mirroring, and the segmenter.

`windows`, `blending`, `sliding_window` and `tta` take any callable as the network and know neither
models nor files. `segmenter` is the façade that joins them to a bundle; import it from there.
"""

from model_core.inference.sliding_window import Predictor, sliding_window
from model_core.inference.tta import mirror_passes, predict_mirrored
from model_core.inference.windows import WindowPlan, plan_windows

__all__ = [
    "Predictor",
    "WindowPlan",
    "mirror_passes",
    "plan_windows",
    "predict_mirrored",
    "sliding_window",
]
