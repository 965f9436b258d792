"""NLA-CycleGAN (Sun 2023): networks, losses, one training step, inference and metrics. Needs torch only.

Names are imported on first use, so that a command's `--help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nla_cyclegan.attention import NonLocalBlock
    from nla_cyclegan.discriminator import DiscriminatorConfig, PatchDiscriminator
    from nla_cyclegan.errors import InputError
    from nla_cyclegan.generator import Generator, GeneratorConfig
    from nla_cyclegan.inference import translate_images
    from nla_cyclegan.losses import LossConfig
    from nla_cyclegan.optim import OptimizerConfig, ScheduleConfig, learning_rate, total_images
    from nla_cyclegan.step import ModelConfig, StepConfig, TrainingStep
    from nla_cyclegan.tiles import translate_tiles
    from nla_cyclegan.weights import load_generator, load_generators, metadata_of, save_generator

_HOMES = {
    "attention": ["NonLocalBlock"],
    "discriminator": ["DiscriminatorConfig", "PatchDiscriminator"],
    "errors": ["InputError"],
    "generator": ["Generator", "GeneratorConfig"],
    "inference": ["translate_images"],
    "losses": ["LossConfig"],
    "optim": ["OptimizerConfig", "ScheduleConfig", "learning_rate", "total_images"],
    "step": ["ModelConfig", "StepConfig", "TrainingStep"],
    "tiles": ["translate_tiles"],
    "weights": ["load_generator", "load_generators", "metadata_of", "save_generator"],
}

__all__ = [
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "InputError",
    "LossConfig",
    "ModelConfig",
    "NonLocalBlock",
    "OptimizerConfig",
    "PatchDiscriminator",
    "ScheduleConfig",
    "StepConfig",
    "TrainingStep",
    "learning_rate",
    "load_generator",
    "load_generators",
    "metadata_of",
    "save_generator",
    "total_images",
    "translate_images",
    "translate_tiles",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
