"""CycleGAN's step written out as the papers tell it: one network call at a time, one image at a time, nothing shared.

Slow and obvious on purpose: what tests compare the training step with, and what its benchmarks are measured against.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Textbook:
    """The step on its own four networks, torch's own optimizer and image pools (lists of images).

    Args:
        bf16: run the networks under bfloat16 autocast.
        discriminator_rate: the discriminators' learning rate, as a part of the generators'.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        cycle: float,
        identity: float,
        bf16: bool = False,
        discriminator_rate: float = 1.0,
    ):
        self.g, self.f = networks["generator_ab"], networks["generator_ba"]
        self.d_a, self.d_b = networks["discriminator_a"], networks["discriminator_b"]
        self.optimizer_g = make_optimizer([*self.g.parameters(), *self.f.parameters()])
        self.optimizer_d = make_optimizer([*self.d_a.parameters(), *self.d_b.parameters()])
        self.cycle, self.identity, self.bf16, self.discriminator_rate = cycle, identity, bf16, discriminator_rate
        self.pools: dict[str, list[Tensor]] = {"a": [], "b": []}

    def __call__(
        self,
        a: Tensor,
        b: Tensor,
        lr: float,
        capacity: int,
        random: torch.Generator,
        seen: Callable[[Tensor, int, int], Tensor] = lambda image, pair, view: image,
    ) -> dict[str, Tensor]:
        """Images [n, 3, H, W] in [-1, 1] of both domains -> the unweighted losses, means over the images.

        Args:
            seen: what the discriminators see of an image [1, 3, H, W], the view of a pair: 0, 1 the fakes of B and A while the
                generators move; then 2, 3 the real ones of A and B, and 4, 5 the fakes of A and B.
        """
        fakes_a, fakes_b, losses = [], [], []
        self._train_discriminators(False)
        self.optimizer_g.zero_grad()
        for pair, (x, y) in enumerate(zip(a.split(1), b.split(1), strict=True)):
            with self._autocast(x):
                fake_y, fake_x = self.g(x), self.f(y)
                terms = {
                    "gan_ab": ((self.d_b(seen(fake_y, pair, 0)).to(x.dtype) - 1) ** 2).mean(),
                    "gan_ba": ((self.d_a(seen(fake_x, pair, 1)).to(x.dtype) - 1) ** 2).mean(),
                    "cycle_a": (self.f(fake_y) - x).abs().mean(),
                    "cycle_b": (self.g(fake_x) - y).abs().mean(),
                }
                if self.identity:
                    terms |= {"identity_a": (self.f(x) - x).abs().mean(), "identity_b": (self.g(y) - y).abs().mean()}
            weights = {"gan": 1.0, "cycle": self.cycle, "identity": self.cycle * self.identity}
            (sum(weights[name.split("_")[0]] * term for name, term in terms.items()) / len(a)).backward()
            losses.append({name: term.detach() for name, term in terms.items()})
            fakes_a.append(fake_x.detach())
            fakes_b.append(fake_y.detach())
        self._step(self.optimizer_g, lr)

        self._train_discriminators(True)
        self.optimizer_d.zero_grad()
        shown_a = list_pool(self.pools["a"], fakes_a, capacity, random)
        shown_b = list_pool(self.pools["b"], fakes_b, capacity, random)
        for image, (x, y) in enumerate(zip(a.split(1), b.split(1), strict=True)):
            of_a, of_b = (x, shown_a[image]), (y, shown_b[image])
            views = (seen(each, image, view) for each, view in zip((*of_a, *of_b), (2, 4, 3, 5), strict=True))
            losses[image]["discriminator_a"] = self._discriminator_loss(self.d_a, next(views), next(views), len(a))
            losses[image]["discriminator_b"] = self._discriminator_loss(self.d_b, next(views), next(views), len(a))
        self._step(self.optimizer_d, lr * self.discriminator_rate)
        return {name: torch.stack([each[name] for each in losses]).mean() for name in losses[0]}

    def _discriminator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor, images: int) -> Tensor:
        with self._autocast(real):
            real_scores, fake_scores = discriminator(real).to(real.dtype), discriminator(fake).to(real.dtype)
            loss = 0.5 * (((real_scores - 1) ** 2).mean() + (fake_scores**2).mean())
        (loss / images).backward()
        return loss.detach()

    def _train_discriminators(self, on: bool) -> None:
        for discriminator in (self.d_a, self.d_b):
            discriminator.requires_grad_(on)

    def _step(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16)


def list_pool(pool: list[Tensor], images: list[Tensor], capacity: int, random: torch.Generator) -> list[Tensor]:
    """The pool of generated images as a Python list."""
    swaps = torch.rand(len(images), generator=random).tolist()
    slots = torch.randint(max(capacity, 1), (len(images),), generator=random).tolist() if capacity else []
    shown = []
    for i, image in enumerate(images):
        if capacity == 0:
            shown.append(image)
        elif len(pool) < capacity:
            pool.append(image)
            shown.append(image)
        elif swaps[i] < 0.5:
            shown.append(pool[slots[i]])
            pool[slots[i]] = image
        else:
            shown.append(image)
    return shown


def nadam(parameters, gradients_of_steps, *, lr, beta1, beta2, momentum_decay, eps=1e-8):
    """Nadam by Dozat's formulas (2015, algorithm 2; Sun 2023, section 3.1), numbers only: values after each step."""
    theta = [float(p) for p in parameters]
    m, n = [0.0] * len(theta), [0.0] * len(theta)
    mu = lambda t: beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))  # noqa: E731
    product, course = 1.0, []
    for t, gradients in enumerate(gradients_of_steps, start=1):
        product *= mu(t)
        for i, g in enumerate(gradients):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            n[i] = beta2 * n[i] + (1 - beta2) * g * g
            g_hat = g / (1 - product)
            m_hat = m[i] / (1 - product * mu(t + 1))
            n_hat = n[i] / (1 - beta2**t)
            m_bar = (1 - mu(t)) * g_hat + mu(t + 1) * m_hat
            theta[i] -= lr * m_bar / (n_hat**0.5 + eps)
        course.append(list(theta))
    return course


def adam(parameters, gradients_of_steps, *, lr, beta1, beta2, eps=1e-8):
    """Adam by the formulas of Sun 2023, section 3.1, numbers only: values after each step."""
    theta = [float(p) for p in parameters]
    m, n = [0.0] * len(theta), [0.0] * len(theta)
    course = []
    for t, gradients in enumerate(gradients_of_steps, start=1):
        for i, g in enumerate(gradients):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            n[i] = beta2 * n[i] + (1 - beta2) * g * g
            theta[i] -= lr * (m[i] / (1 - beta1**t)) / ((n[i] / (1 - beta2**t)) ** 0.5 + eps)
        course.append(list(theta))
    return course


def nonlocal_block(x: Tensor, theta, phi, g, w_z, gain: float, scale: float) -> Tensor:
    """z_i = gain * W_z y_i + x_i, y_i = 1 / C(x) sum_j exp(theta(x_i)^T phi(x_j)) g(x_j), as a double loop over positions."""
    z = x.clone()
    batch, _, height, width = x.shape
    positions = [(r, c) for r in range(height) for c in range(width)]
    for image in range(batch):
        for row, col in positions:
            q = theta @ x[image, :, row, col]
            logits = torch.stack([q @ (phi @ x[image, :, r, c]) * scale for r, c in positions])
            f = torch.exp(logits - logits.max())
            y = sum(f[j] / f.sum() * (g @ x[image, :, r, c]) for j, (r, c) in enumerate(positions))
            z[image, :, row, col] += gain * (w_z @ y)
    return z


def nonlocal_map(x_BCHW: Tensor, theta: Tensor, phi: Tensor, g: Tensor, w_z: Tensor, gain: Tensor) -> Tensor:
    """The same with the N x N map in memory, as the non-local block is published (Wang et al. 2018, figure 2)."""
    q_BDN, k_BDN, v_BDN = (F.conv2d(x_BCHW, weight[:, :, None, None]).flatten(2) for weight in (theta, phi, g))
    weights_BNN = (q_BDN.transpose(1, 2) @ k_BDN).softmax(dim=-1)
    y_BDHW = (v_BDN @ weights_BNN.transpose(1, 2)).unflatten(2, x_BCHW.shape[2:])
    return x_BCHW + gain * F.conv2d(y_BDHW, w_z[:, :, None, None])


def resize_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Nearest x2, reflection padding, 3x3 convolution: the plain layers."""
    enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(F.pad(enlarged, (1, 1, 1, 1), mode="reflect"), weight)
