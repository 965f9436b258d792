"""Initial weights of a run: from another run, a checkpoint, or files of pytorch-CycleGAN-and-pix2pix."""

import re
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from data_shards.errors import UserError
from data_shards.storage import Location, list_folder, locate, read_file
from nla_cyclegan.model.discriminator import PatchDiscriminator
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.build import different_tensors
from nla_cyclegan.weights.checkpoint import CheckpointReader, tensors_in
from nla_cyclegan.weights.commit import world_of
from nla_cyclegan.weights.generators import load_generator
from nla_cyclegan.weights.junyanz import discriminator_state, is_torch_file, read_state
from nla_cyclegan.weights.names import FILE_NAMES, PTH_ENDINGS, Direction, direction_of
from nla_cyclegan.weights.references import folder_of

GENERATORS: dict[Direction, str] = {"A2B": "generator_ab", "B2A": "generator_ba"}
# Ours are named by the domain of the images that they score. There D_A scores the output of G_A, which is in our domain B.
DISCRIMINATORS = {
    "discriminator_a": ("discriminator_a.safetensors", "latest_net_D_B.pth"),
    "discriminator_b": ("discriminator_b.safetensors", "latest_net_D_A.pth"),
}


def load_networks(networks: Mapping[str, nn.Module], source: str, *, discriminators: bool) -> list[str]:
    """Fill networks with the weights of a source.

    Args:
        networks: generator_ab, generator_ba, discriminator_a, discriminator_b.
        source: a run's folder (its newest checkpoint), RUN@best and the like, a checkpoint's folder, a folder with files of
            pytorch-CycleGAN-and-pix2pix, or one generator's file, which fills that generator alone.
        discriminators: whether those are filled too.

    Returns: the names of the networks that were filled.

    Raises: UserError where something is missing or does not fit; some networks may then be filled already.
    """
    folder = folder_of(source)
    if folder is None:
        if discriminators:
            raise UserError(f"{source}: holds one generator; give a folder, or --init.what generators")
        direction = direction_of(source)
        if direction is None:
            theirs = {each: f"latest{ending}" for each, ending in PTH_ENDINGS.items()}
            names = theirs if source.partition("?")[0].endswith(".pth") else FILE_NAMES
            wanted = " or ".join(f"{called} ({each})" for each, called in names.items())
            raise UserError(f"{source}: its name does not say what it translates; call it {wanted}")
        return [_fill_generator(networks, source, direction)]
    filled = [_fill_generator(networks, folder, direction) for direction in GENERATORS]
    if discriminators:
        filled += _fill_discriminators(networks, locate(folder))
    return filled


def _fill_generator(networks: Mapping[str, nn.Module], source: str, direction: Direction) -> str:
    name = GENERATORS[direction]
    ours, theirs = networks[name], load_generator(source, direction)
    assert isinstance(ours, Generator)
    different = _differences(theirs.config.model_dump(), ours.config.model_dump())
    if different:
        wanted = " ".join(f"--model.generator.{field} {_text(value)}" for field, value in different.items())
        raise UserError(f"{source}: its generators differ from this run's; give {wanted}")
    ours.load_state_dict(theirs.state_dict())
    return name


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The fields of their config that differ from ours and change the meaning of the weights."""
    # A learned gain is among the weights, whatever its start value.
    gains = (theirs["nonlocal_gain"], ours["nonlocal_gain"])
    ignored = {"nonlocal_gain"} if "fixed" not in gains or not theirs["nonlocal_blocks"] else set()
    if not theirs["nonlocal_blocks"] and not ours["nonlocal_blocks"]:
        ignored |= {"nonlocal_pooled", "nonlocal_scaled"}
    return {field: value for field, value in theirs.items() if field not in ignored and value != ours[field]}


def _text(value: Any) -> str:
    return (",".join(map(str, value)) or '""') if isinstance(value, tuple | list) else str(value).lower()


def _fill_discriminators(networks: Mapping[str, nn.Module], folder: Location) -> list[str]:
    entries = list(list_folder(folder))
    reader = CheckpointReader(folder) if world_of(entries) else None
    for name, files in DISCRIMINATORS.items():
        file = next((file for file in files if file in entries), None)
        if file is None:
            raise UserError(f"{folder.uri}: no {' or '.join(files)} in it; --init.what generators needs none")
        content = (reader.content(file) if reader else read_file(folder, file)) or b""
        theirs = is_torch_file(content)
        tensors = discriminator_state(read_state(content)) if theirs else tensors_in(content, file)
        network = networks[name]
        assert isinstance(network, PatchDiscriminator)
        if different := different_tensors(tensors, network.state_dict()):
            raise UserError(
                f"{folder.uri}/{file}: its discriminators differ from this run's; {_discriminator_options(tensors, network)}"
                f"--init.what generators needs none ({different})"
            )
        network.load_state_dict(tensors)
    return list(DISCRIMINATORS)


def _discriminator_options(tensors: Mapping[str, Tensor], ours: PatchDiscriminator) -> str:
    """The options for a discriminator of these tensors, as far as these show it; see PatchDiscriminator for their names."""
    places = [int(match[1]) for name in tensors if (match := re.match(r"body\.(\d+)\.", name))]
    attended = {int(match[1]) // 3 for name in tensors if (match := re.match(r"body\.(\d+)\.1\.", name))}
    first = tensors.get("body.0.weight")
    if first is None:
        return ""
    found = {"base_channels": len(first), "num_layers": (max(places) - 2) // 3, "nonlocal_blocks": sorted(attended)}
    here = ours.config.model_dump() | {"nonlocal_blocks": sorted(ours.config.nonlocal_blocks)}
    wanted = {field: value for field, value in found.items() if value != here[field]}
    options = " ".join(f"--model.discriminator.{field} {_text(value)}" for field, value in wanted.items())
    return f"give {options}; " if options else ""


def packed(networks: Mapping[str, nn.Module], names: list[str]) -> dict[str, bytes]:
    """The weights of these networks as bytes, to be sent to other ranks."""
    return {
        name: safetensors.torch.save(
            {key: value.cpu().contiguous() for key, value in networks[name].state_dict().items()}
        )
        for name in names
    }
