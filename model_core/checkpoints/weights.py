"""Weights files read without running anything in them, and tensors put into a network strictly.

Two file formats are taken: safetensors, and PyTorch's own through its tensors-only unpickler. A
file is judged by its first bytes, not by its name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model_core.errors import CheckpointError
from model_core.networks import Network, build_network

WRAPPERS: Final = ("state_dict", "model_state_dict", "network_weights", "module", "model")
"""Keys under which training programs keep the tensors, beside optimiser and bookkeeping."""
PREFIXES: Final = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

_LISTED: Final = 5
_unpickling = threading.Lock()


class _Ignored:
    """Takes the place of a harmless non-tensor value in a training checkpoint; holds nothing.

    nnU-Net and others keep NumPy numbers and paths beside the weights. The unpickler is given
    this class under those names, so such files load and none of that code ever runs.
    """

    def __new__(cls, *_: object) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_BYSTANDERS: Final[list[Callable[..., Any] | tuple[Callable[..., Any], str]]] = [
    (_Ignored, name)
    for name in (
        "numpy.core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.dtypes.{kind}DType" for kind in ("Bool", "Float32", "Float64", "Int32", "Int64")),
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
    )
]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file on the CPU, unwrapped and without parallel-training prefixes.

    Args:
        path: safetensors, or a PyTorch file holding a plain ``state_dict`` or one under a key of
            `WRAPPERS`.

    Raises:
        CheckpointError: for a file that is missing, damaged, or holds anything but tensors.
    """
    return tensors_in(read_content(path))


def tensors_in(found: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a file's content, unwrapped and without parallel-training prefixes.

    Raises:
        CheckpointError: something in it is no tensor.
    """
    for _ in range(len(WRAPPERS)):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    for prefix in PREFIXES * 2:
        if found and all(str(name).startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{str(name)[:80]} is a {type(value).__name__}, not a tensor; expected a plain "
                f"state_dict or one under {', '.join(WRAPPERS)}"
            )
    return dict(found)


def read_content(path: Path) -> Mapping[Any, Any]:
    """All that a weights file holds: tensors and plain values, the wrappers still around them.

    Raises:
        CheckpointError: for a file that is missing, damaged, or holds code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"the weights file cannot be opened ({error.strerror}); check the path"
        ) from error
    content = load_safetensors(path) if head[8:] == b"{" else _load_torch(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"the weights file holds a {type(content).__name__}, not a dictionary of tensors; "
            "save the network's state_dict() instead"
        )
    return content


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: for a damaged file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"the safetensors file is damaged: {error}") from error


def _load_torch(path: Path) -> object:
    # Opened here, because torch.load judges a path by its suffix.
    with _unpickling, torch.serialization.safe_globals(_BYSTANDERS), path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            reason = str(error).partition("Unsupported global: GLOBAL ")[2].split(" ")[0]
            culprit = f" ({reason})" if reason else ""
            raise CheckpointError(
                f"the weights file holds code or objects besides tensors{culprit} and was not "
                "loaded; where it is trusted, load it with its own program and save only the "
                "network's state_dict()"
            ) from error
        # A damaged or hostile archive provokes anything inside the reader; the caller gets this.
        except Exception as error:
            raise CheckpointError(
                f"the weights file is damaged or in no known format ({type(error).__name__})"
            ) from error


def check_tensors(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not exactly those expected: names, shapes, kind, finite values.

    Raises:
        CheckpointError: naming the tensors at fault.
    """
    _refuse("missing tensor", [name for name in expected if name not in got])
    _refuse("unknown tensor", [name for name in got if name not in expected])
    _refuse(
        "tensor of the wrong shape",
        [
            f"{name} (expected {tuple(wanted.shape)}, got {tuple(got[name].shape)})"
            for name, wanted in expected.items()
            if got[name].shape != wanted.shape
        ],
    )
    _refuse(
        "tensor of the wrong kind",
        [
            f"{name} ({got[name].dtype}, {got[name].layout})"
            for name, wanted in expected.items()
            if wanted.is_floating_point()
            and not (got[name].is_floating_point() and got[name].layout == torch.strided)
        ],
    )
    _refuse(
        "NaN or infinity in tensor",
        [name for name, tensor in got.items() if not bool(torch.isfinite(tensor).all())],
    )


def _refuse(fault: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise CheckpointError(f"{fault}: {', '.join(names[:_LISTED])}{more}")


def build_empty(family: str, config: Mapping[str, Any]) -> Network:
    """The network without memory for its tensors: enough to know their names and shapes.

    So no file makes this program allocate more than the file itself holds. `fill` completes it.

    Raises:
        OptionError: for sizes that make no network.
    """
    with torch.device("meta"):
        return build_network(family, **config)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> None:
    """Put checked tensors into an empty network; afterwards it is ready to infer on the CPU.

    Args:
        network: from `build_empty`, changed in place: eval mode, no gradients.
        tensors: by the network's own names; `check_tensors` has accepted them. They are copied.
        dtype: of every floating-point tensor afterwards.
    """
    copies = {
        name: tensors[name]
        .detach()
        .to(dtype if wanted.is_floating_point() else wanted.dtype, copy=True)
        .contiguous()
        for name, wanted in network.state_dict().items()
    }
    network.load_state_dict(copies, strict=True, assign=True)
    network.eval().requires_grad_(False)
    assert not any(buffer.is_meta for buffer in network.buffers()), "a buffer outside state_dict"
