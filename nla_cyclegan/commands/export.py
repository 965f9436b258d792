"""Write generators for other programs: python -m nla_cyclegan export."""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.errors import UserError, counted, shown_name
from data_shards.local_paths import Result
from nla_cyclegan.weights.names import BOTH, FILE_NAMES, LAYOUT, WEIGHTS, Direction, direction_of

HUB = "hub"

# Modules that need torch are imported where they are used, so that --help is quick.
if TYPE_CHECKING:
    from nla_cyclegan.model.generator import Generator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, help=WEIGHTS)
    parser.add_argument(
        "--direction", choices=[*FILE_NAMES, BOTH],
        help="which generator (default: B2A, photo to Monet; for hub both, in one repository)",
    )  # fmt: skip
    parser.add_argument(
        "--format", required=True, choices=[*_WRITERS, HUB],
        help=f"safetensors: this project's own, weights and architecture; onnx: a graph for any batch and size, "
        f"checked against torch; junyanz: the .pth layout of {LAYOUT}; hub: a folder for the Hugging Face Hub, with a model card",
    )  # fmt: skip
    parser.add_argument("--out", action=Result, metavar="FILE", help="the file to write, or the folder for hub")
    parser.add_argument("destination", action=Result, nargs="?", metavar="DIR", help="the same as --out")
    parser.add_argument("--license", metavar="NAME", help="for hub: the licence in the model card, such as apache-2.0")


def run(args: argparse.Namespace) -> int:
    """Write the file and print what it is. Returns: 0."""
    from nla_cyclegan.weights.references import check_there

    if (args.out is None) == (args.destination is None):
        raise UserError("--out: give it exactly once: the file to write, or the folder for --format hub")
    out = args.out or args.destination
    if args.format != HUB and out.is_dir():
        raise UserError(f"--out {shown_name(out)} is a folder; name a file in it")
    check_there(args.weights)
    _check_not_read(out, args.weights)
    if args.format == HUB:
        from nla_cyclegan.commands.export_hub import export_hub

        directions: list[Direction] = list(FILE_NAMES) if args.direction in (None, BOTH) else [args.direction]
        print(f"{shown_name(out)}: {export_hub(args.weights, directions, out, args.license)}")
        return 0
    if args.direction == BOTH or args.license:
        raise UserError("--direction both and --license need --format hub")
    from data_shards.storage.files import writing
    from nla_cyclegan.weights.generators import load_generator

    direction: Direction = args.direction or "B2A"
    generator = load_generator(args.weights, direction)
    with writing(out) as temporary:
        said = _WRITERS[args.format](generator, temporary)
    print(f"{shown_name(out)}: {direction}, {said}")
    return 0


def _check_not_read(out: Path, weights: str) -> None:
    """Raises: UserError where `out` is the file or folder that the weights are read from, or one of the files in there."""
    from data_shards.storage import locate
    from nla_cyclegan.weights import hub
    from nla_cyclegan.weights.checkpoint_names import NAME
    from nla_cyclegan.weights.references import Reference

    source = locate(Reference.of(weights).uri)
    if source.is_object_store:
        return
    read, written = Path(source.root).resolve(), out.resolve()
    is_weights = direction_of(out) or out.name in (hub.CONFIG, hub.WEIGHTS) or NAME.fullmatch(written.parent.name)
    if written == read or (read in written.parents and out.exists() and is_weights):
        what = "folder" if out.is_dir() else "weight file"
        raise UserError(f"--out {shown_name(out)} is the {what} that is read; choose another name")


def _safetensors(generator: "Generator", path: Path) -> str:
    from nla_cyclegan.weights.generators import weight_file

    path.write_bytes(weight_file(generator))
    return f"{counted(generator.config.num_blocks, 'block')}, {generator.config.base_channels} base channels"


def _junyanz(generator: "Generator", path: Path) -> str:
    import torch

    from nla_cyclegan.weights.junyanz import state_of

    # Not directly to the path: torch would store the file's name, and not raise OSError for a full disk.
    content = io.BytesIO()
    torch.save(state_of(generator), content)
    path.write_bytes(content.getvalue())
    config = generator.config
    return f"for {LAYOUT} with --netG resnet_{config.num_blocks}blocks --ngf {config.base_channels} --no_dropout"


def _onnx(generator: "Generator", path: Path) -> str:
    from nla_cyclegan.weights.onnx import OPSET, check_onnx, save_onnx

    save_onnx(generator, path)
    checked = check_onnx(generator, path)
    sizes = ", ".join(f"{width} x {height}" for _, _, height, width in checked)
    attention = (
        "; non-local blocks take memory with the square of the pixels" if generator.config.nonlocal_blocks else ""
    )
    mask = " and mask [batch, 1, height, width] in 0..1" if generator.config.output == "masked" else ""
    return (
        f"ONNX opset {OPSET}: image [batch, 3, height, width] in -1..1, sides multiples of 4 -> translation, the same{mask}; "
        f"onnxruntime and torch differ by at most {max(checked.values()):.1e} ({sizes}){attention}"
    )


_WRITERS: dict[str, Callable[["Generator", Path], str]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "junyanz": _junyanz,
}
