"""CycleGAN's step with the structure of its published PyTorch code: what most people train with today.

The networks are `nn.Sequential`s in NCHW with a bias in every convolution and padding layers of their own; each network
call is made by itself (six of generators, two and four of discriminators); both discriminators have a backward each; the pool is a Python
list of images; the optimizer is torch's Adam at (0.5, 0.999). fp32 by default, where cuDNN takes TF32 for convolutions.
"""

import itertools
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def generator(channels: int, blocks: int) -> nn.Module:
    """c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-3 (Zhu et al. 2017, appendix 7.2)."""
    c = channels
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, c, 7), nn.InstanceNorm2d(c), nn.ReLU(True)]
    for width in (c, 2 * c):
        layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU(True)]
    layers += [_Residual(4 * c) for _ in range(blocks)]
    for width in (4 * c, 2 * c):
        layers += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1), nn.InstanceNorm2d(width // 2), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for is_last in (False, True):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
            layers += [] if is_last else [nn.ReLU(True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def discriminator(channels: int) -> nn.Module:
    """The 70 x 70 PatchGAN."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for width, stride in ((channels, 2), (2 * channels, 2), (4 * channels, 1)):
        layers += [nn.Conv2d(width, 2 * width, 4, stride, 1), nn.InstanceNorm2d(2 * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * channels, 1, 4, 1, 1))


class Published:
    """A call takes one step.

    Args:
        autocast: run the networks under bfloat16 autocast, which the published code does not by default.
    """

    def __init__(self, channels: int, blocks: int, device: torch.device, *, autocast: bool) -> None:
        self.g_a, self.g_b = (generator(channels, blocks).to(device) for _ in "ab")
        self.d_a, self.d_b = (discriminator(channels).to(device) for _ in "ab")
        networks = (self.g_a, self.g_b, self.d_a, self.d_b)
        for module in itertools.chain.from_iterable(network.modules() for network in networks):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                assert module.bias is not None
                nn.init.normal_(module.weight, 0.0, 0.02)
                nn.init.zeros_(module.bias)
        self.optimizer_g, self.optimizer_d = (
            torch.optim.Adam(itertools.chain(one.parameters(), other.parameters()), lr=2e-4, betas=(0.5, 0.999))
            for one, other in ((self.g_a, self.g_b), (self.d_a, self.d_b))
        )
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
        self.pools: dict[str, list[Tensor]] = {"a": [], "b": []}

    def __call__(self, a: Tensor, b: Tensor) -> dict[str, float]:
        """float images [n, 3, H, W] in [-1, 1] of both domains -> the losses, as read for the log."""
        self._train_discriminators(False)
        self.optimizer_g.zero_grad()
        with self.autocast:
            fake_b, fake_a = self.g_a(a), self.g_b(b)
            back_a, back_b = self.g_b(fake_b), self.g_a(fake_a)
            losses = {
                "idt_a": F.l1_loss(self.g_a(b), b) * 5,
                "idt_b": F.l1_loss(self.g_b(a), a) * 5,
                "gan_a": _lsgan(self.d_a(fake_b), 1.0),
                "gan_b": _lsgan(self.d_b(fake_a), 1.0),
                "cycle_a": F.l1_loss(back_a, a) * 10,
                "cycle_b": F.l1_loss(back_b, b) * 10,
            }
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer_g.step()
        self._train_discriminators(True)
        self.optimizer_d.zero_grad()
        for name, network, real, fake in (("a", self.d_a, b, fake_b), ("b", self.d_b, a, fake_a)):
            shown = self._query(name, fake.detach())
            with self.autocast:
                losses[f"d_{name}"] = 0.5 * (_lsgan(network(real), 1.0) + _lsgan(network(shown), 0.0))
            losses[f"d_{name}"].backward()
        self.optimizer_d.step()
        return {name: loss.item() for name, loss in losses.items()}

    def _train_discriminators(self, on: bool) -> None:
        for network in (self.d_a, self.d_b):
            network.requires_grad_(on)

    def _query(self, name: str, images: Tensor, capacity: int = 50) -> Tensor:
        pool, shown = self.pools[name], []
        for image in images.split(1):
            if len(pool) < capacity:
                pool.append(image)
                shown.append(image)
            elif random.random() > 0.5:
                place = random.randrange(capacity)
                shown.append(pool[place].clone())
                pool[place] = image
            else:
                shown.append(image)
        return torch.cat(shown)


def _lsgan(scores: Tensor, target: float) -> Tensor:
    return F.mse_loss(scores, torch.full_like(scores, target))
