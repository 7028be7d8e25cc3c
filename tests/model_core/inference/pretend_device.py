"""A device of PyTorch's with a memory of its own, written in Python: computes on the CPU, counts.

Importing this makes the device ``card`` known to the whole process, for good: do it in a child
process. A tensor on it is a tensor of another device in every way that a caller can see; beyond
`Memory.limit` bytes it answers with `torch.OutOfMemoryError`, as CUDA does.
"""

import weakref
from typing import Any, ClassVar

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)


class Memory:
    """The device's memory: bytes by address, with the number of tensors that share them."""

    limit: int | None = None
    peak = 0
    _blocks: ClassVar[dict[int, list[int]]] = {}

    @classmethod
    def used(cls) -> int:
        return sum(size for size, _ in cls._blocks.values())

    @classmethod
    def take(cls, tensor: torch.Tensor, holder: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in cls._blocks:
            if cls.limit is not None and cls.used() + size > cls.limit:
                raise torch.OutOfMemoryError(f"card: {size} bytes more than {cls.used()}")
            cls._blocks[address] = [size, 0]
        cls._blocks[address][1] += 1
        cls.peak = max(cls.peak, cls.used())
        weakref.finalize(holder, cls._give_back, address)

    @classmethod
    def _give_back(cls, address: int) -> None:
        cls._blocks[address][1] -= 1
        if not cls._blocks[address][1]:
            del cls._blocks[address]


class Host:
    """What the host has a part in, while somebody looks: copies from it, numbers read by it."""

    asked: ClassVar[list[str] | None] = None

    @classmethod
    def note(cls, op: Any, args: tuple[Any, ...]) -> None:
        name = op._schema.name
        copied = name == "aten::copy_" and not isinstance(args[1], OnCard)
        if cls.asked is not None and (copied or name == "aten::_local_scalar_dense"):
            cls.asked.append(name)


class OnCard(torch.Tensor):
    """A tensor on the card; its numbers are those of a tensor on the CPU."""

    numbers: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> "OnCard":
        self = torch.Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, device="card:0",
        )  # fmt: skip
        Memory.take(numbers, self)
        self.numbers = numbers
        return self

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, *args, **(kwargs or {}))


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Any operation that has to do with the card."""
    Host.note(op, args)
    leaves, _ = tree_flatten((args, kwargs))
    known = {id(leaf.numbers): leaf for leaf in leaves if isinstance(leaf, OnCard)}
    copies = op._schema.name in ("aten::copy_", "aten::to", "aten::_to_copy")
    if known and not copies:
        others = [leaf for leaf in leaves if type(leaf) is torch.Tensor and leaf.dim()]
        assert not others, f"{op}: tensors on card and on the CPU at once"
    to_host = any(leaf == torch.device("cpu") for leaf in leaves if isinstance(leaf, torch.device))
    onto_host = op._schema.name == "aten::copy_" and not isinstance(args[0], OnCard)
    with torch.inference_mode(False), torch.no_grad():
        result = op(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        if to_host or onto_host:
            return result
        return tree_map(lambda leaf: _on_card(leaf, known), result)


def _on_cpu(leaf: object) -> object:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.numbers if isinstance(leaf, OnCard) else leaf


def _on_card(leaf: object, known: dict[int, OnCard]) -> object:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return known[id(leaf)] if id(leaf) in known else OnCard(leaf)


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("card", backend_module=_Module())
_library = torch.library.Library("_", "IMPL")
_library.fallback(run, "PrivateUse1")
