"""Casts a network's weights for its passes, and takes the gradients of all passes back, in a few launches.

Weights are cast to the type of the computation; a non-local block's theta, phi and g are joined, and W_z is multiplied by its
gain. Each pass gets tensors of its own that share one memory: so the gradients of the passes arrive apart, and are added
together in one launch instead of one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from nla_cyclegan.model.attention import NonLocalBlock

Weights = dict[str, Tensor]

PASSES = 2
"""Passes of a generator between two backward calls. Later passes share the last one's weights, and autograd adds their gradients."""

# The 7x7 kernels round their weights themselves, and biases are added in fp32.
KEPT = ("encoder.0.weight", "decoder.6.weight", "decoder.6.bias", "body.0.bias")


@dataclass(frozen=True)
class _Weight:
    """A weight as a pass reads it: the parameters at these places joined along their rows, times a gain."""

    name: str
    places: tuple[int, ...]
    dtype: torch.dtype
    gain: int | None = None


class _Cast(Function):
    """Parameters -> the plan's weights, PASSES times, each time in the same memory."""

    @staticmethod
    def forward(ctx: Any, plan: Sequence[_Weight], *parameters: Tensor) -> tuple[Tensor, ...]:
        made: list[Tensor] = []
        targets: list[Tensor] = []
        sources: list[Tensor] = []
        for weight in plan:
            parts = [parameters[place] for place in weight.places]
            first = parts[0]
            if len(parts) == 1 and weight.gain is None and first.dtype == weight.dtype:
                made.append(first.detach())
                continue
            if len(parts) == 1:
                whole = torch.empty_like(first, dtype=weight.dtype)
            else:
                rows = sum(len(part) for part in parts)
                whole = torch.empty((rows, *first.shape[1:]), dtype=weight.dtype, device=first.device)
            made.append(whole)
            if weight.gain is not None:
                torch.mul(first, parameters[weight.gain], out=whole)
                continue
            targets += whole.split([len(part) for part in parts])
            sources += parts
        if targets:
            torch._foreach_copy_(targets, sources)
        ctx.plan = plan
        ctx.save_for_backward(*parameters)
        ctx.set_materialize_grads(False)
        outputs = [tensor.detach() for _ in range(PASSES) for tensor in made]
        wanted = [any(ctx.needs_input_grad[1 + i] for i in _places(weight)) for weight in plan] * PASSES
        ctx.mark_non_differentiable(*(out for out, want in zip(outputs, wanted, strict=True) if not want))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        parameters, plan = ctx.saved_tensors, ctx.plan
        summed = _summed([grads[i : i + len(plan)] for i in range(0, len(grads), len(plan))])
        back: list[Tensor | None] = [None] * len(parameters)
        targets: list[Tensor] = []
        sources: list[Tensor] = []
        for weight, gradient in zip(plan, summed, strict=True):
            if gradient is None:
                continue
            if len(weight.places) == 1 and gradient.dtype == parameters[weight.places[0]].dtype:
                back[weight.places[0]] = gradient
                continue
            # In the parameters' memory order, so that autograd does not copy them.
            wide = [torch.empty_like(parameters[place]) for place in weight.places]
            targets += wide
            sources += gradient.split([len(each) for each in wide])
            for place, each in zip(weight.places, wide, strict=True):
                back[place] = each
        if targets:
            torch._foreach_copy_(targets, sources)
        for weight in plan:
            of_w = back[weight.places[0]]
            if weight.gain is not None and of_w is not None:
                back[weight.gain] = (of_w * parameters[weight.places[0]]).sum()
                back[weight.places[0]] = of_w * parameters[weight.gain]
        return None, *(each if need else None for each, need in zip(back, ctx.needs_input_grad[1:], strict=True))


def _places(weight: _Weight) -> tuple[int, ...]:
    return weight.places if weight.gain is None else (*weight.places, weight.gain)


def _summed(passes: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
    """The sums over the passes, each in its own type."""
    first = list(passes[0])
    for later in passes[1:]:
        both = [i for i, (a, b) in enumerate(zip(first, later, strict=True)) if a is not None and b is not None]
        for dtype in {first[i].dtype for i in both}:  # type: ignore[union-attr]
            of_type = [i for i in both if first[i].dtype == dtype]  # type: ignore[union-attr]
            sums = torch._foreach_add([first[i] for i in of_type], [later[i] for i in of_type])  # type: ignore[misc]
            for i, total in zip(of_type, sums, strict=True):
                first[i] = total
        first = [b if a is None else a for a, b in zip(first, later, strict=True)]
    return first


def cast_weights(network: nn.Module, dtype: torch.dtype) -> list[Weights]:
    """A network's weights by name, for each of PASSES passes.

    They are the parameters by their names, in `dtype` where cuDNN and matrix products read them. A non-local block without
    pooling has two: `qkv`, which is [theta, phi, g], and `z`, the gain times W_z.
    """
    parameters = dict(network.named_parameters())
    places = {name: i for i, name in enumerate(parameters)}
    plan: list[_Weight] = []
    for name, block in network.named_modules():
        if isinstance(block, NonLocalBlock) and not block.pooled:
            embeddings = tuple(places.pop(f"{name}.{each}.weight") for each in ("theta", "phi", "g"))
            gain = None if block.gain is None else places.pop(f"{name}.gain")
            plan += [
                _Weight(f"{name}.qkv", embeddings, dtype),
                _Weight(f"{name}.z", (places.pop(f"{name}.w_z.weight"),), dtype, gain),
            ]
    for name, place in places.items():
        parameter = parameters[name]
        # A gain, a single number, stays as it is.
        kept = name in KEPT or not parameter.dim()
        plan.append(_Weight(name, (place,), parameter.dtype if kept else dtype))
    tensors = _Cast.apply(plan, *parameters.values())
    names = [weight.name for weight in plan]
    return [dict(zip(names, tensors[i : i + len(plan)], strict=True)) for i in range(0, len(tensors), len(plan))]
