"""A function of tensors at fixed addresses, replayed as a CUDA graph: one launch for all of its kernels.

Inputs that change from call to call are copied into those tensors; other decisions of the host are fixed at the capture.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UPS = 2
"""Calls before a capture: cuDNN chooses its algorithms, libraries take their workspaces, kernels are compiled."""
MOST_GRAPHS = 4
"""Largest number of graphs, each of which keeps its intermediate results in memory; further shapes are computed without one."""

Function = Callable[..., Tensor]


class Inputs:
    """Tensors at fixed addresses on a device, filled while the device still works on the previous call.

    What lies on the host takes a stream of its own, through two sets of page-locked buffers in turn; then a copy on the
    device, in the order of its work, puts it in place.

    Args:
        like: tensors of the shapes and types wanted.
    """

    def __init__(self, like: Sequence[Tensor], device: torch.device) -> None:
        self.tensors = [torch.empty_like(tensor, device=device) for tensor in like]
        self._stages: list[_Stage] = []
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)
            self._stages = [_Stage(self.tensors, stream) for _ in range(2)]

    def fill(self, values: Sequence[Tensor]) -> None:
        """Copy these values from the host or the device; the caller may change them afterwards."""
        if not self._stages:
            torch._foreach_copy_(self.tensors, list(values))
            return
        self._stages.reverse()
        self._stages[0].pass_on(values, self.tensors)


class _Stage:
    """Staging buffers for values that are copied from the host to a GPU.

    Args:
        like: tensors of the shapes and types wanted.
        stream: the stream of the copies.
    """

    def __init__(self, like: Sequence[Tensor], stream: torch.cuda.Stream) -> None:
        self.host = [torch.empty_like(tensor, device="cpu").pin_memory() for tensor in like]
        self.arrived = [torch.empty_like(tensor) for tensor in like]
        self.stream = stream
        self._copied, self._taken = torch.cuda.Event(), torch.cuda.Event()
        self._taken.record()

    def pass_on(self, values: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        # These buffers were used two calls ago, so that their copy has usually finished.
        self._copied.synchronize()
        sources = []
        with torch.cuda.stream(self.stream):
            self._taken.wait()
            for value, host, arrived in zip(values, self.host, self.arrived, strict=True):
                sources.append(value if value.is_cuda else arrived)
                if not value.is_cuda:
                    arrived.copy_(host.copy_(value), non_blocking=True)
            self._copied.record()
        self._copied.wait()
        torch._foreach_copy_(list(targets), sources)
        self._taken.record()


class CudaGraph:
    """A captured call of a function, whose result is `output`.

    Args:
        rehearse: calls it without side effects beyond what the function overwrites at each call.
    """

    def __init__(self, function: Function, rehearse: Callable[..., None], inputs: Sequence[Tensor]) -> None:
        # One stream for both, so that autograd's state does not tie the capture to another stream.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                rehearse(*inputs)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that stores a checkpoint, may keep using the GPU.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self.output = function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)

    def replay(self) -> None:
        self._graph.replay()


class Replay:
    """Calls a function of tensors, by a graph for each of the first few shapes, or directly.

    Args:
        function: takes tensors on the device and returns one; all its state must lie in tensors at fixed addresses.
        rehearse: as in CudaGraph.
        capture: makes a graph of both and of the inputs; None: the function is called directly, with the same inputs.
    """

    def __init__(
        self,
        function: Function,
        rehearse: Callable[..., None],
        device: torch.device,
        capture: Callable[[Function, Callable[..., None], Sequence[Tensor]], CudaGraph] | None,
    ) -> None:
        self.function, self.rehearse, self.device, self.capture = function, rehearse, device, capture
        self._inputs: dict[tuple[torch.Size, ...], Inputs] = {}
        self._graphs: dict[tuple[torch.Size, ...], CudaGraph] = {}

    def __call__(self, *values: Tensor) -> Tensor:
        """The function's output for these values, on the host or on the device, as a new tensor."""
        shapes = tuple(value.shape for value in values)
        if shapes not in self._inputs:
            self._inputs[shapes] = Inputs(values, self.device)
        inputs = self._inputs[shapes]
        inputs.fill(values)
        if self.capture and shapes not in self._graphs and len(self._graphs) < MOST_GRAPHS:
            self._graphs[shapes] = self.capture(self.function, self.rehearse, inputs.tensors)
        if graph := self._graphs.get(shapes):
            graph.replay()
            return graph.output.clone()
        return self.function(*inputs.tensors)
