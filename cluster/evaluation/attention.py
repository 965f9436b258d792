"""Records during training how much each non-local block adds to its input."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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


def maybe_measure_attention(
    log: MetricsLog, model: ModelConfig, networks: Mapping[str, nn.Module], a: Tensor, b: Tensor, images_seen: int
) -> None:
    """Add `attention_generator_ab_4` and the like to the record of the steps that is due: rms(gain W_z y) / rms(x) of each
    non-local block. 0 is the identity, which every learned gain starts as by default.

    Measured by rank 0 on the first of these images, uint8 [n, 3, H, W] of each domain: a forward of each network that has
    such blocks, outside the step.
    """
    if log.world.rank == 0 and log.clock.due(log.config.every, images_seen):
        log.counts.update(measured(model, networks, a, b))


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
