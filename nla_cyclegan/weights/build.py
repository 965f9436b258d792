"""A generator of stored weights and config."""

import torch
from pydantic import ValidationError
from torch import Tensor

from data_shards.errors import UserError
from data_shards.storage.checked import problem
from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.model.generator import Generator


def build_generator(config_json: str, tensors: dict[str, Tensor]) -> Generator:
    """A generator with these weights, in eval mode, fp32 on the CPU. Raises: UserError if they do not fit the config or are not finite."""
    try:
        config = GeneratorConfig.model_validate_json(config_json)
        if config.num_blocks > len(tensors):
            raise UserError(f"damaged: a config of {config.num_blocks} blocks for {len(tensors)} tensors")
        with torch.device("meta"):
            # On the meta device, so that a wrong config is found before any memory is allocated for it.
            Generator(config).load_state_dict(tensors, assign=True)
        # Whatever torch's default device and type are.
        with torch.device("cpu"):
            generator = Generator(config).float()
        generator.load_state_dict(tensors)
    except (ValidationError, RuntimeError, TypeError, OverflowError, KeyError) as error:
        reason = problem(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise UserError(f"damaged: weights and config do not make a generator ({reason})") from error
    check_finite(generator)
    return generator.eval()


def check_finite(generator: Generator) -> None:
    """Raises: UserError for weights of which some are NaN or infinite: the images would be black."""
    for name, tensor in generator.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} has NaN or infinite values: the training diverged; give an earlier checkpoint")
