"""Pure tensor functions: the selective scan, its convolution, its orders, and their backends."""

from model_core.ops.backends import (
    BACKEND_VARIABLE,
    BACKENDS,
    Backend,
    available_backends,
    best_backend,
    resolve_backend,
    use_backend,
)
from model_core.ops.causal_conv import causal_conv1d
from model_core.ops.check import BackendCheck, check_backend
from model_core.ops.norm import instance_norm
from model_core.ops.order import SCAN_DIRECTIONS, ScanDirection, inverse_order, scan_order
from model_core.ops.scan import selective_scan

__all__ = [
    "BACKENDS",
    "BACKEND_VARIABLE",
    "SCAN_DIRECTIONS",
    "Backend",
    "BackendCheck",
    "ScanDirection",
    "available_backends",
    "best_backend",
    "causal_conv1d",
    "check_backend",
    "instance_norm",
    "inverse_order",
    "resolve_backend",
    "scan_order",
    "selective_scan",
    "use_backend",
]
