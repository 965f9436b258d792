"""The non-local block: z = x + softmax(scale q k^T) v W_z^T, with [q, k, v] = x W^T in one matrix product.

The residual sum, and that of its gradients, are done by the matrix products beside them, which accumulate into their result. The
flash kernels read q, k and v where the product wrote them: D columns of 3 D each.

Bytes moved beside the attention, in sizes of x (bf16, D = C / 2): forward x read, q, k, v written, y and x read, z written: 5, and 2
where the library copies x before it adds; backward dy 1.5, the gradients of q, k, v joined 3, dx 3.5, the weights' 4.

Shape suffixes: R rows, all positions of all images; C channels; D embedding width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from nla_cyclegan.kernels.launch import nhwc


class _Project(Function):
    """x W^T, and x itself for the residual sum. The gradient of the latter is accumulated into in place, so nothing else may hold it."""

    @staticmethod
    def forward(ctx: Any, x_RC: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x_RC, weight)
        return x_RC @ weight.t(), x_RC.view_as(x_RC)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        g, dx_RC = grads
        x_RC, weight = ctx.saved_tensors
        dw = g.t() @ x_RC if ctx.needs_input_grad[1] else None
        return dx_RC.addmm_(g, weight) if ctx.needs_input_grad[0] else None, dw


def nonlocal_block(x_BCHW: Tensor, qkv_weight: Tensor, z_weight: Tensor, scale: float) -> Tensor:
    """`NonLocalBlock.forward` without pooling -> x's shape and dtype, in NHWC order.

    The backward pass overwrites the gradient of the result, so no other function may read that gradient.

    Args:
        qkv_weight: [3 D, C], theta's, phi's and g's rows; both weights have x's dtype.
        z_weight: [C, D], the gain times W_z.
        scale: of the logits.
    """
    b, c, h, w = x_BCHW.shape
    d = z_weight.shape[1]
    qkv, x_RC = _Project.apply(nhwc(x_BCHW).permute(0, 2, 3, 1).reshape(-1, c), qkv_weight)
    # One head: [B, 1, positions, D], with the strides of the layout that is called packed.
    q, k, v = (each.unflatten(2, (1, d)).transpose(1, 2) for each in qkv.view(b, h * w, 3 * d).split(d, dim=2))
    y_RD = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).reshape(-1, d)
    return torch.addmm(x_RC, y_RD, z_weight.t()).view(b, h, w, c).permute(0, 3, 1, 2)
