"""Records during training how much each non-local block adds to its input."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.config import ObserveConfig
from cluster.records.metrics_file import ATTENTION, Record
from cluster.records.observe import MetricsLog
from nla_cyclegan.model.attention import attention_shares
from nla_cyclegan.model.config import ModelConfig
from nla_cyclegan.pixels import to_float

# network -> the domain whose images it takes, and its section of the model
NETWORKS = {
    "generator_ab": ("a", "generator"),
    "generator_ba": ("b", "generator"),
    "discriminator_a": ("a", "discriminator"),
    "discriminator_b": ("b", "discriminator"),
}


class AttentionLog:
    """Adds `attention_generator_ab_4` and the like to the records of the steps: rms(gain W_z y) / rms(x) of each non-local block.

    0 is the identity, which every learned gain starts as by default. Measured on one image pair by rank 0, when a record is due: a
    forward of each network that has such blocks, outside the step. All ranks call it alike.
    """

    def __init__(self, config: ObserveConfig, model: ModelConfig, clock: Clock, world: World, log: MetricsLog) -> None:
        self.config, self.model, self.clock, self.world, self.log = config, model, clock, world, log

    def maybe_measure(self, networks: Mapping[str, nn.Module], a: Tensor, b: Tensor, images_seen: int) -> None:
        """Measure on the first of these images, uint8 [n, 3, H, W] of each domain, when another `every` images have been seen."""
        if self.world.rank == 0 and self.clock.due(self.config.every, images_seen):
            self.log.counts.update(measured(self.model, networks, a, b))


def measured(model: ModelConfig, networks: Mapping[str, nn.Module], a: Tensor, b: Tensor) -> Record:
    """The share of each non-local block of the networks being trained; empty where there is none."""
    shares: dict[str, Tensor] = {}
    for name, (domain, section) in NETWORKS.items():
        places = sorted(getattr(model, section).nonlocal_blocks)
        if places:
            weights = next(networks[name].parameters())
            image = to_float((a if domain == "a" else b)[:1].to(weights.device), weights.dtype)
            found = attention_shares(networks[name], image)
            shares |= {f"{ATTENTION}{name}_{place}": share for place, share in zip(places, found, strict=True)}
    # One transfer from the device for all.
    values = torch.stack(list(shares.values())).tolist() if shares else []
    return dict(zip(shares, values, strict=True))
