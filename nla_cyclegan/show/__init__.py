"""A local page on which a run's generators translate one's own photos: the verb `show`."""

import argparse

from data_shards.command_line import integer
from nla_cyclegan.weights.names import WEIGHTS

PORT = 8890
SIZE = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", required=True, help=f"{WEIGHTS}; of a run all checkpoints can be chosen on the page"
    )
    parser.add_argument(
        "--port", type=integer, default=PORT, help=f"port of 127.0.0.1; 0: any free one (default: {PORT})"
    )
    parser.add_argument(
        "--size", type=integer, default=SIZE, metavar="N",
        help=f"images of more than N x N pixels are reduced to that (default: {SIZE}; a GPU takes 1024)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Returns 0."""
    from nla_cyclegan.weights.references import check_there

    check_there(args.weights)
    # Imported here because torch takes seconds to import, and --help does not need it.
    from nla_cyclegan.show.serve import serve

    return serve(args.weights, args.port, args.size, args.device, open_browser=args.open)
