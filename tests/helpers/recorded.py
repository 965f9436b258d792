"""What a CUDA graph does, on the CPU: a function's operators are recorded once and run again on the same memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select")


class RecordedGraph:
    """Stands for `CudaGraph`. Numbers that the host gave an operator stay those of the capture, as in a CUDA graph.

    A capture runs nothing on a GPU, so here all memory that the recorded operators wrote to gets its values back.
    """

    def __init__(
        self, function: Callable[..., Tensor], rehearse: Callable[..., None], inputs: Sequence[Tensor]
    ) -> None:
        rehearse(*inputs)
        recorder = _Recorder()
        with recorder:
            self.output = function(*inputs)
        self.calls = recorder.calls
        with torch.no_grad():
            for tensor, before in recorder.overwritten.values():
                tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, outputs in self.calls:
            again = list(tensors(function(*args, **kwargs)))
            for output, new in zip(outputs, again, strict=True):
                # A view, or what was written in place, is there already.
                if output.data_ptr() != new.data_ptr():
                    output.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, list[Tensor]]] = []
        self.overwritten: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert function.name() not in WAITS, f"{function.name()} waits for the device"
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.alias_info and argument.alias_info.is_write:
                for tensor in tensors(value):
                    # All tensors that are written in part are whole ones here, or made while recording.
                    whole = tensor._base if tensor._base is not None else tensor
                    self.overwritten.setdefault(whole.untyped_storage().data_ptr(), (whole, whole.detach().clone()))
        result = function(*args, **kwargs)
        # Everything is kept alive, so that addresses stay what they were.
        self.calls.append((function, args, kwargs, list(tensors(result))))
        return result


def tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))
