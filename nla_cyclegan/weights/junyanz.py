"""The weight layout of pytorch-CycleGAN-and-pix2pix, Zhu's own PyTorch code: reading its .pth files and writing them.

Its ResNet generator is one `nn.Sequential` named `model`: c7s1-64 is model.1, the downsampling convolutions model.4 and
model.7, the blocks from model.10 on, then the transposed convolutions and c7s1-3. Each of its convolutions has a bias. The
instance norm after all but the last subtracts it again, so these biases are left out on reading and written as zeros.
"""

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from data_shards.errors import UserError
from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.build import check_finite
from nla_cyclegan.weights.names import LAYOUT

# Kept by instance norms up to PyTorch 0.3; that code itself drops them, as each image has statistics of its own.
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
# Tensors of networks of that code, and of its relatives, that are not built here.
_OTHERS = {
    "model.2.weight": "made with --norm batch",
    "model.7.filt": "of contrastive-unpaired-translation without --no_antialias --no_antialias_up",
    "model.model.": "made with --netG unet_256 or unet_128",
}


def is_torch_file(content: bytes) -> bool:
    """Whether these bytes begin like a file of `torch.save`: a zip, or a pickle of before PyTorch 1.6."""
    return content.startswith((b"PK\x03\x04", b"\x80\x02"))


def read_state(content: bytes) -> dict[str, Tensor]:
    """Name -> tensor of a .pth file, on the CPU. Tensors alone are read: no code in the file can run.

    Raises: UserError that says what the file holds instead.
    """
    try:
        damaged = None
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as file:
                if any(name.endswith("/constants.pkl") for name in file.namelist()):
                    raise UserError(
                        "a TorchScript module; only a state dict is read (torch.jit.load(FILE).state_dict())"
                    )
                damaged = _damaged_record(file)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"the Python object {named[1]}" if named else "more than tensors"
        raise UserError(f"holds {what}; only a state dict is read, as anything else could run code") from error
    except UserError:
        raise
    # A damaged file makes torch's readers raise nearly anything.
    except Exception as error:
        raise UserError(f"not a readable .pth file ({(str(error) or type(error).__name__).splitlines()[0]})") from error
    if damaged:
        raise UserError(f"damaged: the checksum of {damaged} is wrong; copy or download it again")
    if not _is_state(state):
        raise UserError(f"expected a state dict, which is names and tensors, but it holds {_describe(state)}")
    return state


def _is_state(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())


def _damaged_record(file: zipfile.ZipFile) -> str | None:
    """The first record of a .pth file whose CRC-32 is wrong; torch reads it all the same."""
    bad = file.testzip()
    # A writer that leaves CRCs out (torch.serialization.set_crc32_options) does so for all records; this one is the first.
    return None if bad and bad.endswith("/data.pkl") else bad


def generator_from(state: Mapping[str, Tensor]) -> Generator:
    """The generator of a state dict in this layout, in eval mode; channels and blocks are read off the tensors.

    Raises: UserError with the first tensor that is missing, unexpected or of another shape.
    """
    tensors = _plain_names(state)
    blocks = {name.split(".")[1] for name in tensors if ".conv_block." in name}
    first = tensors.get("model.1.weight", torch.empty(64, 3, 7, 7))
    try:
        config = GeneratorConfig(base_channels=first.shape[0], num_blocks=len(blocks), nonlocal_blocks=())
    except (ValidationError, IndexError) as error:
        raise UserError(f"model.1.weight is {list(first.shape)}, expected [channels, 3, 7, 7]") from error
    # With --dropout, a dropout stands before a block's second convolution; it does nothing outside training.
    dropout = "model.10.conv_block.6.weight" in tensors
    generator = Generator(config)
    places = _places(generator, dropout)
    expected = {f"{place}.{kind}": shape for place, (_, shapes) in places.items() for kind, shape in shapes.items()}
    _check(tensors, expected)
    own = generator.state_dict()
    generator.load_state_dict(
        {
            f"{name}.{kind}": tensors[f"{place}.{kind}"].float()
            for place, (name, shapes) in places.items()
            for kind in shapes
            if f"{name}.{kind}" in own
        }
    )
    check_finite(generator)
    return generator.eval()


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without statistics, and without what wrappers put before all names: module. (DataParallel), _orig_mod. (torch.compile).

    Raises: UserError for a tensor that is no weight, and for several networks.
    """
    prefixes = {name.partition("model.")[0] for name in state}
    networks = sorted(prefix for prefix in prefixes if f"{prefix}model.1.weight" in state)
    if len(networks) > 1:
        raise UserError(f"holds several networks, {', '.join(networks)}: save the tensors of one of them alone")
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    plain = {name.removeprefix(prefix): tensor for name, tensor in state.items() if not name.endswith(_STATISTICS)}
    for name, tensor in plain.items():
        # Not quantized ones either, which are no floating point.
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            raise UserError(f"{name} is not a dense tensor of floating-point numbers ({tensor.dtype}, {tensor.layout})")
    return plain


def discriminator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A discriminator's state dict in this layout (its `n_layers` or `basic`), under our names.

    Both number the layers alike; the biases before a norm, which subtracts them again, are left out.
    """
    tensors = _plain_names(state)
    places = sorted({int(match[1]) for name in tensors if (match := re.fullmatch(r"model\.(\d+)\.weight", name))})
    # All but the first convolution and the last.
    biases = {f"model.{place}.bias" for place in places[1:-1]}
    kept = {name: tensor.float() for name, tensor in tensors.items() if name not in biases}
    return {re.sub(r"^model\.", "body.", name): tensor for name, tensor in kept.items()}


def state_of(generator: Generator) -> dict[str, Tensor]:
    """The generator's weights in this layout, fp32 on the CPU.

    Raises: UserError for an architecture that the layout has no place for.
    """
    only_these = {"nonlocal_blocks": (), "output": "image", "norm": "instance", "upsample": "transposed"}
    for field, only in only_these.items():
        value = getattr(generator.config, field)
        if value != only:
            raise UserError(
                f"the layout of {LAYOUT} has no place for {field} {value!r}, only for {only!r}; "
                "export --format safetensors or onnx keeps it"
            )
    own = generator.state_dict()
    state: dict[str, Tensor] = {}
    for place, (name, shapes) in _places(generator, dropout=False).items():
        for kind, shape in shapes.items():
            tensor = own.get(f"{name}.{kind}", torch.zeros(shape))
            state[f"{place}.{kind}"] = tensor.detach().to("cpu", torch.float32).contiguous()
    return state


def _places(generator: Generator, dropout: bool) -> dict[str, tuple[str, dict[str, list[int]]]]:
    """Place in the layout -> (name in our generator, shapes of its weight and bias), in the layout's order."""
    blocks = generator.config.num_blocks
    places = {"model.1": "encoder.0", "model.4": "encoder.3", "model.7": "encoder.6"}
    for index in range(blocks):
        places[f"model.{10 + index}.conv_block.1"] = f"blocks.{index}.body.0"
        places[f"model.{10 + index}.conv_block.{6 if dropout else 5}"] = f"blocks.{index}.body.3"
    places |= {f"model.{at + blocks}": f"decoder.{own}" for at, own in {10: 0, 13: 3, 17: 6}.items()}
    return {place: (name, _shapes(generator.get_submodule(name))) for place, name in places.items()}


def _shapes(convolution: nn.Module) -> dict[str, list[int]]:
    assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
    return {"weight": list(convolution.weight.shape), "bias": [convolution.out_channels]}


def _check(tensors: Mapping[str, Tensor], expected: Mapping[str, list[int]]) -> None:
    missing = [f"missing {name} {shape}" for name, shape in expected.items() if name not in tensors]
    unexpected = [f"unexpected {name} {list(tensors[name].shape)}" for name in tensors if name not in expected]
    if missing or unexpected:
        what = next((what for start, what in _OTHERS.items() if any(name.startswith(start) for name in tensors)), "")
        why = "; ".join([*missing[:1], *unexpected[:1], *([f"it is one {what}"] if what else [])])
        raise UserError(f"not a ResNet generator of {LAYOUT} with instance norm: {why}")
    for name, shape in expected.items():
        if list(tensors[name].shape) != shape:
            raise UserError(f"{name} is {list(tensors[name].shape)}, expected {shape}")


def _describe(state: Any) -> str:
    if isinstance(state, dict):
        inner = [name for name, entry in state.items() if _is_state(entry) and entry]
        hint = f"; save an entry that is one alone: torch.save(torch.load(FILE)[{inner[0]!r}], NEW)" if inner else ""
        return f"a dictionary with {', '.join(map(str, list(state)[:3]))}{hint}"
    return f"a {type(state).__name__}"
