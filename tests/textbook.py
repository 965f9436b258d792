"""CycleGAN's step written out as the paper tells it: one network call at a time, one image at a time, nothing shared.

Slow and obvious on purpose: the judge of nla_cyclegan.step.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Textbook:
    """The step on its own four networks, optimizers and histories (lists of images)."""

    def __init__(self, networks: dict[str, nn.Module], make_optimizer, *, cycle: float, identity: float):
        self.g, self.f = networks["generator_ab"], networks["generator_ba"]
        self.d_a, self.d_b = networks["discriminator_a"], networks["discriminator_b"]
        self.optimizer_g = make_optimizer([*self.g.parameters(), *self.f.parameters()])
        self.optimizer_d = make_optimizer([*self.d_a.parameters(), *self.d_b.parameters()])
        self.cycle, self.identity = cycle, identity
        self.history: dict[str, list[Tensor]] = {"a": [], "b": []}

    def __call__(self, a: Tensor, b: Tensor, lr: float, capacity: int, random: torch.Generator) -> dict[str, float]:
        losses = dict.fromkeys(
            [
                "gan_ab",
                "gan_ba",
                "cycle_a",
                "cycle_b",
                "identity_a",
                "identity_b",
                "discriminator_a",
                "discriminator_b",
            ],
            0.0,
        )
        fakes_a, fakes_b = [], []
        self.optimizer_g.zero_grad()
        for x, y in zip(a.split(1), b.split(1), strict=True):
            fake_y, fake_x = self.g(x), self.f(y)
            scores_y, scores_x = self.d_b(fake_y), self.d_a(fake_x)
            terms = {
                "gan_ab": ((scores_y - 1) ** 2).mean(),
                "gan_ba": ((scores_x - 1) ** 2).mean(),
                "cycle_a": (self.f(fake_y) - x).abs().mean(),
                "cycle_b": (self.g(fake_x) - y).abs().mean(),
                "identity_a": (self.f(x) - x).abs().mean(),
                "identity_b": (self.g(y) - y).abs().mean(),
            }
            weights = {"gan": 1.0, "cycle": self.cycle, "identity": self.cycle * self.identity}
            total = sum(weights[name.split("_")[0]] * term for name, term in terms.items())
            (total / len(a)).backward()
            for name, term in terms.items():
                losses[name] += term.item() / len(a)
            fakes_a.append(fake_x.detach())
            fakes_b.append(fake_y.detach())
        self._step(self.optimizer_g, lr)

        self.optimizer_d.zero_grad()
        shown = {"a": self._recall("a", fakes_a, capacity, random), "b": self._recall("b", fakes_b, capacity, random)}
        for domain, judge, reals in (("a", self.d_a, a), ("b", self.d_b, b)):
            for real, fake in zip(reals.split(1), shown[domain], strict=True):
                loss = 0.5 * (((judge(real) - 1) ** 2).mean() + (judge(fake) ** 2).mean())
                (loss / len(a)).backward()
                losses[f"discriminator_{domain}"] += loss.item() / len(a)
        self._step(self.optimizer_d, lr)
        return losses

    def _step(self, optimizer, lr: float) -> None:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()

    def _recall(self, domain: str, images: list[Tensor], capacity: int, random: torch.Generator) -> list[Tensor]:
        return list_pool(self.history[domain], images, capacity, random)


def list_pool(history: list[Tensor], images: list[Tensor], capacity: int, random: torch.Generator) -> list[Tensor]:
    """The history of generated images as a Python list."""
    swaps = torch.rand(len(images), generator=random).tolist()
    slots = torch.randint(max(capacity, 1), (len(images),), generator=random).tolist() if capacity else []
    shown = []
    for i, image in enumerate(images):
        if capacity == 0:
            shown.append(image)
        elif len(history) < capacity:
            history.append(image)
            shown.append(image)
        elif swaps[i] < 0.5:
            shown.append(history[slots[i]])
            history[slots[i]] = image
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


def resize_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest x2, reflection padding, 3x3 convolution: the plain layers."""
    enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(F.pad(enlarged, (1, 1, 1, 1), mode="reflect"), weight, bias)
