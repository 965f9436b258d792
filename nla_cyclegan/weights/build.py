"""A generator of stored weights and config."""

from collections.abc import Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from data_shards.errors import UserError
from data_shards.storage.checked import problem
from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.model.generator import Generator

# Tensors in a message.
MOST_NAMED = 2


def build_generator(config_json: str, tensors: dict[str, Tensor]) -> Generator:
    """A generator with these weights, in eval mode, fp32 on the CPU. Raises: UserError if they do not fit the config or are not finite."""
    try:
        config = GeneratorConfig.model_validate_json(config_json)
        if config.num_blocks > len(tensors):
            raise UserError(f"damaged: a config of {config.num_blocks} blocks for {len(tensors)} tensors")
        # On the meta device, so that a wrong config is found before any memory is allocated for it.
        with torch.device("meta"):
            expected = Generator(config).state_dict()
        if different := different_tensors(tensors, expected, ("there", "by the config")):
            raise UserError(f"damaged: weights and config do not make a generator ({different})")
        # Whatever torch's default device and type are.
        with torch.device("cpu"):
            generator = Generator(config).float()
        generator.load_state_dict(tensors)
    except (ValidationError, RuntimeError, TypeError, OverflowError, KeyError) as error:
        reason = problem(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise UserError(f"damaged: weights and config do not make a generator ({reason})") from error
    check_finite(generator)
    return generator.eval()


def different_tensors(
    theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], places: tuple[str, str] = ("there", "here")
) -> str:
    """The first tensors that one of them lacks, or has in another shape; empty where there are none."""
    shapes = [{name: list(tensor.shape) for name, tensor in each.items()} for each in (theirs, ours)]
    pairs = [(name, *(each.get(name, "not") for each in shapes)) for name in sorted(shapes[0] | shapes[1])]
    different = [f"{name} is {one} {places[0]}, {other} {places[1]}" for name, one, other in pairs if one != other]
    return "; ".join([*different[:MOST_NAMED], *(["..."] if different[MOST_NAMED:] else [])])


def check_finite(generator: Generator) -> None:
    """Raises: UserError for weights of which some are NaN or infinite: the images would be black."""
    for name, tensor in generator.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} has NaN or infinite values: the training diverged; give an earlier checkpoint")
