"""The options of `cluster translate`, and the settings that all workers use."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.settings.config import has_credentials
from cluster.settings.options import Parser
from cluster.settings.preflight import in_ray_job
from cluster.settings.workers.scaling import parse_workers
from cluster.settings.workers.selector import Selector, check_accelerator, parse_labels
from data_shards.command_line import filled
from data_shards.errors import UserError
from data_shards.storage.location import expanded
from data_shards.storage.uri import is_uri
from nla_cyclegan.commands.translate import positive
from nla_cyclegan.weights.names import WEIGHTS, Direction, add_direction

PROG = "python -m cluster translate"
DESCRIPTION = """Translate every image of a folder, on this machine or on a Ray cluster. Names and sub-folders are kept. Results that
are in OUT already, and not older than their images, are left as they are: the command can be killed at any moment, and the same
command translates what is missing."""
WORKER_CPUS = 4


@dataclass(frozen=True)
class TranslationSettings:
    """How images are translated, the same for all workers.

    Attributes:
        size: side that the shorter one is resized to; None: as it is.
        batch: images of one size at once, at most.
        tile: side in pixels of the largest square that goes through the network at once; a multiple of 4.
    """

    direction: Direction
    suffix: str
    size: int | None
    batch: int
    tile: int
    precision: Literal["fp32", "bf16"]


def parser() -> argparse.ArgumentParser:
    """Raises UserError for a wrong option."""
    parser = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "source", metavar="IN", help="folder or prefix with images, such as s3://bucket/photos; its sub-folders too"
    )
    parser.add_argument("out", metavar="OUT", help="folder or prefix for the results, which all machines reach")
    parser.add_argument("--weights", required=True, help=WEIGHTS)
    add_direction(parser)
    parser.add_argument("--format", choices=["png", "jpg", "webp"], default="png", help="of the results (default: png)")
    parser.add_argument(
        "--size", type=positive, metavar="N", help="resize the shorter side to N pixels first (default: as they are)"
    )
    parser.add_argument("--batch", type=positive, default=8, help="images of one size at once (default: 8)")
    parser.add_argument(
        "--tile", type=positive, default=1024, metavar="N",
        help="at most N x N pixels at once (default: 1024); larger images are translated in tiles of that side",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto",
        help="auto (default): bf16 on GPUs, fp32 on cores, as `nla_cyclegan translate` does",
    )  # fmt: skip
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images, by name")
    parser.add_argument(
        "--recursive", action=argparse.BooleanOptionalAction, default=True, help="also the folders inside IN (default)"
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if an image was left out")
    where = parser.add_argument_group("machines")
    where.add_argument(
        "--address",
        type=filled,
        help="the Ray cluster's HOST:PORT (default: RAY_ADDRESS; else a Ray of this process's own)",
    )
    where.add_argument(
        "--gpu", action=argparse.BooleanOptionalAction, help="one GPU per worker (default: if there is one)"
    )
    where.add_argument(
        "--cpus", type=float, metavar="N",
        help=f"cores of each worker, which read and write beside its network (default: a GPU's share of its machine; without GPUs {WORKER_CPUS} at most)",
    )  # fmt: skip
    where.add_argument(
        "--workers",
        metavar="N | MIN,MAX",
        help="number of workers (default: from 1 to as many as the cluster has or gets room for)",
    )
    where.add_argument(
        "--accelerator", metavar="TYPE", help="only machines with this accelerator, by Ray's name: H100, L4"
    )
    where.add_argument(
        "--labels", metavar="KEY=VALUE", action="append", default=[],
        help="only machines with this label (ray start --labels), also KEY=!VALUE, KEY=in(A,B)",
    )  # fmt: skip
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises: UserError with a line for each problem."""
    options = parser().parse_args(arguments)
    problems = relative_paths(options) if in_ray_job() else []
    try:
        workers = parse_workers(options.workers)
    except ValueError as error:
        problems.append(f"--workers {options.workers}: {error}")
    try:
        labels = parse_labels(",".join(options.labels))
    except ValueError as error:
        problems.append(f"--labels: {error}")
    try:
        accelerator = options.accelerator and check_accelerator(options.accelerator)
    except ValueError as error:
        problems.append(f"--accelerator {options.accelerator}: {error}")
    if options.cpus is not None and not 0 < options.cpus < math.inf:
        problems.append(f"--cpus {options.cpus:g}: expected more than 0")
    if problems:
        raise UserError("\n".join(problems))
    options.workers = workers if isinstance(workers, tuple) else (workers, workers) if workers else (1, None)
    options.selector = Selector(accelerator, labels)
    for name in ("source", "out"):
        path = getattr(options, name)
        setattr(options, name, path if is_uri(path) else os.path.abspath(expanded(path)))
    return options


def relative_paths(options: argparse.Namespace) -> list[str]:
    """Relative paths, which a job would resolve in its temporary folder, one line each."""
    paths = {"IN": options.source, "OUT": options.out, "--weights": options.weights}
    return [
        f"{name}: {path!r} is relative, and the working directory of a Ray job is a temporary copy; give an absolute path or a "
        "URI that all machines reach"
        for name, path in paths.items()
        if not is_uri(path) and not os.path.isabs(expanded(path))
    ]


def shown_credentials(options: argparse.Namespace) -> list[str]:
    """URIs with credentials, one line each: Ray's dashboard shows a job's command to everyone."""
    paths = {"IN": options.source, "OUT": options.out, "--weights": options.weights}
    return [
        f"{name}: has credentials in its URI, which Ray would show; set them in the environment of the cluster's machines"
        for name, path in paths.items()
        if has_credentials(path)
    ]
