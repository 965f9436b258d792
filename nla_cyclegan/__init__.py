"""NLA-CycleGAN (Sun 2023): networks, losses, one training step, inference and metrics.

Names are imported on first use, so that a command's `--help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from data_shards.version import __version__ as __version__

if TYPE_CHECKING:
    from nla_cyclegan.inference.images import translate_images
    from nla_cyclegan.inference.tiles import translate_tiles
    from nla_cyclegan.model.attention import NonLocalBlock
    from nla_cyclegan.model.config import DiscriminatorConfig, GeneratorConfig, ModelConfig
    from nla_cyclegan.model.discriminator import PatchDiscriminator
    from nla_cyclegan.model.generator import Generator
    from nla_cyclegan.pictures.paint import paint
    from nla_cyclegan.training.config import InitConfig, LossConfig, OptimizerConfig, ScheduleConfig, StepConfig
    from nla_cyclegan.training.optimizer.schedule import learning_rate, total_images
    from nla_cyclegan.training.step import TrainingStep
    from nla_cyclegan.weights.generators import load_generator, load_generators, metadata_of, save_generator
    from nla_cyclegan.weights.hub import from_pretrained

_HOMES = {
    "inference.images": ["translate_images"],
    "inference.tiles": ["translate_tiles"],
    "model.attention": ["NonLocalBlock"],
    "model.config": ["DiscriminatorConfig", "GeneratorConfig", "ModelConfig"],
    "model.discriminator": ["PatchDiscriminator"],
    "model.generator": ["Generator"],
    "pictures.paint": ["paint"],
    "training.config": ["InitConfig", "LossConfig", "OptimizerConfig", "ScheduleConfig", "StepConfig"],
    "training.optimizer.schedule": ["learning_rate", "total_images"],
    "training.step": ["TrainingStep"],
    "weights.generators": ["load_generator", "load_generators", "metadata_of", "save_generator"],
    "weights.hub": ["from_pretrained"],
}

__all__ = [
    "DiscriminatorConfig", "Generator", "GeneratorConfig", "InitConfig", "LossConfig", "ModelConfig", "NonLocalBlock",
    "OptimizerConfig", "PatchDiscriminator", "ScheduleConfig", "StepConfig", "TrainingStep", "from_pretrained",
    "learning_rate", "load_generator", "load_generators", "metadata_of", "paint", "save_generator", "total_images",
    "translate_images", "translate_tiles",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # For completion in a notebook or a shell.
    return sorted({*globals(), *__all__})
