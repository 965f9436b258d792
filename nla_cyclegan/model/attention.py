"""The non-local block of NLA-CycleGAN (Sun 2023, section 2.2; Wang et al. 2018, Eq. 1-6).

Shape suffixes: B images, C channels, H x W positions, N = H * W positions in a row, M <= N key positions, D = C / 2 embedding width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nla_cyclegan.model.config import Gain, NonLocalConfig


class NonLocalBlock(nn.Module):
    """z_i = W_z y_i + x_i with y_i = sum_j softmax_j(theta(x_i)^T phi(x_j)) g(x_j), the embedded Gaussian.

    theta, phi, g and W_z are 1x1 convolutions without bias, as the paper writes them; on positions laid in a row a 1x1
    convolution is a linear map, which hands the attention kernel the contiguous q, k, v that its linear memory asks for.
    W_z may be followed by a learned scalar gain: at a gain of 0 the block is the identity, wherever it is put.

    Args:
        channels: C of the input and the output; even, at least 2.
        pooled: halve the sides of phi and g by 2x2 max pooling (Wang et al., "subsampling trick"): a quarter of the keys.
        scaled: divide the logits by sqrt(D), as transformers do; the paper does not.
        gain: the start value of the learned gain, or "fixed": there is none, as the paper writes it.

    Attributes:
        gain: the learned gain, a scalar; None where it is fixed at 1.
    """

    gain: nn.Parameter | None

    def __init__(self, channels: int, *, pooled: bool = False, scaled: bool = False, gain: Gain = 0.0) -> None:
        super().__init__()
        inner = channels // 2
        self.theta = nn.Linear(channels, inner, bias=False)
        self.phi = nn.Linear(channels, inner, bias=False)
        self.g = nn.Linear(channels, inner, bias=False)
        self.w_z = nn.Linear(inner, channels, bias=False)
        self.register_parameter("gain", None if gain == "fixed" else nn.Parameter(torch.tensor(float(gain))))
        self.pooled = pooled
        self.scale = inner**-0.5 if scaled else 1.0

    @classmethod
    def of(cls, config: NonLocalConfig, channels: int) -> "NonLocalBlock":
        """A block with the form of a config."""
        return cls(channels, pooled=config.nonlocal_pooled, scaled=config.nonlocal_scaled, gain=config.nonlocal_gain)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape. Memory is linear in H * W: the N x N map is never stored."""
        x_BNC = in_rows(x_BCHW)
        return self.attend(x_BCHW, x_BNC, *self.keys_and_values(x_BCHW, x_BNC))

    def keys_and_values(self, x_BCHW: Tensor, x_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """phi and g of every (pooled) position, [B, M, D] each; the input also in rows."""
        return self._keys(self.phi, x_BCHW, x_BNC), self._keys(self.g, x_BCHW, x_BNC)

    def attend(self, x_BCHW: Tensor, x_BNC: Tensor, k_BMD: Tensor, v_BMD: Tensor) -> Tensor:
        """As `forward`, but each position attends to these keys instead of those of its own image; the input also in rows."""
        q_BND = self.theta(x_BNC)
        if q_BND.dtype == torch.float16:
            # Unscaled logits may exceed 65,504, the largest fp16 number.
            with torch.autocast(q_BND.device.type, enabled=False):
                y_BND = _attended(q_BND.float(), k_BMD.float(), v_BMD.float(), self.scale).half()
        else:
            y_BND = _attended(q_BND, k_BMD, v_BMD, self.scale)
        # The gain scales W_z instead of its output, which saves an image-sized tensor in the backward.
        weight = self.w_z.weight if self.gain is None else self.gain * self.w_z.weight
        z_BNC = F.linear(y_BND, weight)
        return x_BCHW + z_BNC.unflatten(1, x_BCHW.shape[-2:]).permute(0, 3, 1, 2)

    def attention_map(self, x_BCHW: Tensor, row: int, col: int) -> Tensor:
        """Attention weights of position (row, col) over all positions: softmax weights [B, H, W] that sum to 1.

        With pooled keys the weights of a 2x2 window are shared evenly among its positions.
        """
        height, width = x_BCHW.shape[-2:]
        x_BNC = in_rows(x_BCHW)
        q_BD = self.theta(x_BNC[:, row * width + col])
        logits_BM = torch.einsum("bd,bmd->bm", q_BD, self._keys(self.phi, x_BCHW, x_BNC)) * self.scale
        weights_BM = logits_BM.softmax(dim=-1, dtype=torch.promote_types(logits_BM.dtype, torch.float32))
        if not self.pooled:
            return weights_BM.unflatten(1, (height, width))
        window_BHW = weights_BM.unflatten(1, (height // 2, width // 2)) / 4
        # An odd last row or column is in no pooling window, so that its weight is 0.
        spread_BHW = window_BHW.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        return F.pad(spread_BHW, (0, width % 2, 0, height % 2))

    def _keys(self, embed: nn.Linear, x_BCHW: Tensor, x_BNC: Tensor) -> Tensor:
        embedded_BND = embed(x_BNC)
        if not self.pooled:
            return embedded_BND
        embedded_BDHW = embedded_BND.transpose(1, 2).unflatten(2, x_BCHW.shape[-2:])
        return in_rows(F.max_pool2d(embedded_BDHW, 2))


@torch.no_grad()
def attention_shares(network: nn.Module, images_BCHW: Tensor) -> list[Tensor]:
    """rms(gain W_z y) / rms(x) of each non-local block as the images pass through the network, in its order: scalars on the device.

    It shows how much a block contributes: 0 where it is still the identity. No cost without such a block.
    """
    shares: list[Tensor] = []

    def measure(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        (x_BCHW,) = inputs
        shares.append((output - x_BCHW).norm() / x_BCHW.norm().clamp_min(torch.finfo(x_BCHW.dtype).tiny))

    blocks = [module for module in network.modules() if isinstance(module, NonLocalBlock)]
    hooks = [block.register_forward_hook(measure) for block in blocks]
    try:
        if blocks:
            network(images_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return shares


def _attended(q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, scale: float) -> Tensor:
    # One head: the kernels take [batch, heads, positions, width].
    return F.scaled_dot_product_attention(q_BND[:, None], k_BMD[:, None], v_BMD[:, None], scale=scale)[:, 0]


def in_rows(x_BCHW: Tensor) -> Tensor:
    """Positions in a row, channels last and contiguous; free of copies for a channels_last input."""
    return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
