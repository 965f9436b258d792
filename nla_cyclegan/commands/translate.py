"""Translate image files with a trained generator: python -m nla_cyclegan translate."""

import argparse
from pathlib import Path

from data_shards.command_line import whole_number
from data_shards.errors import UserError, shown_name
from data_shards.local_paths import InputPath, LocalFile, LocalPath, ResultFolder
from nla_cyclegan.weights.names import WEIGHTS, add_direction

GRID_ROWS = 6


class TranslationFolder(ResultFolder):
    """The folder for translations. Raises: UserError, also for the name of an image, which is meant for a file."""

    advice = InputPath.advice

    def path_of(self, text: str) -> Path:
        from data_shards.images.left_out import CONTAINERS
        from data_shards.images.signatures import SUFFIXES

        path = super().path_of(text)
        kinds = {"an image": SUFFIXES, "an archive, a table or a film": CONTAINERS}
        kind = next((kind for kind, suffixes in kinds.items() if path.suffix.lower() in suffixes), None)
        if kind and not path.is_dir():
            raise UserError(
                f"{shown_name(text)}: is named like {kind}; name a folder, in which results keep their names"
            )
        return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", action=InputPath, metavar="INPUT", help="image files, folders of images, or globs"
    )
    parser.add_argument("--weights", required=True, help=WEIGHTS)
    add_direction(parser)
    parser.add_argument(
        "--out", required=True, action=TranslationFolder, metavar="DIR",
        help="folder for the results, which keep their names, and their subfolders below an input folder or a glob's first wildcard",
    )  # fmt: skip
    parser.add_argument(
        "--recursive", action=argparse.BooleanOptionalAction, default=True,
        help="also read the folders inside input folders (default); --no-recursive: leave them out",
    )  # fmt: skip
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with status 1 if an image, or a folder that cannot be opened, was left out",
    )
    parser.add_argument(
        "--format",
        choices=["png", "jpg", "webp"],
        default="png",
        help="format of the results (default: png, lossless; jpg takes a third of its bytes, webp a fifth, with colours at half the "
        "resolution)",
    )
    parser.add_argument(
        "--size", type=positive, metavar="N",
        help="resize the shorter side to N pixels first, such as the size of training (default: as they are)",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, default=8, help="images of one size at once (default: 8)")
    parser.add_argument(
        "--tile", type=positive, default=1024, metavar="N",
        help="at most N x N pixels at once (default: 1024, about 1.5 GB of memory at 64 channels); larger images are "
        "translated in tiles of that side that join without a seam",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32",
        help="precision of the network's arithmetic (default: fp32); bf16 is for GPUs: about twice as fast, and few pixels differ by more than 1",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    pictures = parser.add_argument_group("pictures", "Images over N x N pixels (--tile) are reduced to that for these.")
    pictures.add_argument(
        "--attention", type=_fractions, metavar="X,Y",
        help="also draw, beside each result, where each non-local block looks from this point, as NAME.attentionBLOCK; "
        "fractions of width and height (0.5,0.5 is the centre); and, of a generator with model.generator.output masked, the mask "
        "as NAME.mask (white: painted anew, black: the input)",
    )  # fmt: skip
    pictures.add_argument(
        "--grid", action=LocalFile, metavar="FILE",
        help=f"also draw up to {GRID_ROWS} of the images: input, result, back again, attention (from the most structured "
        "place near the centre, where --attention names none), mask; .png, .jpg or .webp",
    )  # fmt: skip
    pictures.add_argument(
        "--truth", action=LocalPath, metavar="DIR", help="true results, by the same names: one more column in the grid"
    )
    parser.set_defaults(grid_rows=GRID_ROWS)


def run(args: argparse.Namespace) -> int:
    """Translate and report. Returns: 1 if no image could be translated, or, with --strict, not all; else 0."""
    from nla_cyclegan.weights.references import check_there

    check_there(args.weights)
    # Imported here because torch takes seconds to import, and --help does not need it.
    from nla_cyclegan.commands.translate_files import translate_files

    return translate_files(args)


def positive(text: str) -> int:
    """The type of an option that counts. Raises: ArgumentTypeError."""
    try:
        number = whole_number(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def _fractions(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        x = y = -1.0
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y with both from 0 to 1, such as 0.5,0.7")
    return x, y
