"""`python -m tuning dashboard`: sweeps as one HTML page, which opens from disk, or is served while they run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_shards.command_line import integer
from data_shards.errors import UserError
from data_shards.local_paths import LocalFile
from data_shards.storage.files import writing

HOST, PORT = "127.0.0.1", 8050


def main(arguments: Sequence[str]) -> int:
    """Raises: UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning dashboard",
        description="Write a sweep as one HTML page: ranking, learning curves, importance of fields, cost, pictures. "
        "Several sweeps: a comparison by what they spent. A storage: an index of its sweeps and runs.",
    )
    parser.add_argument(
        "uris", metavar="URI", nargs="+", help="a sweep's folder, STORAGE/NAME; several of them; or a storage"
    )
    parser.add_argument(
        "--out", action=LocalFile, metavar="FILE", help="file for the page (default: NAME.html in this folder)"
    )
    parser.add_argument(
        "--watch", action="store_true", help="serve the page instead, and update it while the sweep runs"
    )
    parser.add_argument("--host", help=f"with --watch: address to listen on (default: {HOST})")
    parser.add_argument("--port", type=integer, help=f"with --watch: port; 0: any free one (default: {PORT})")
    args = parser.parse_args(arguments)
    if args.watch:
        if args.out:
            raise UserError("--out: not allowed with --watch, which serves the page instead of writing it")
        from tuning.dashboard.serve import serve

        return serve(args.uris, args.host or HOST, PORT if args.port is None else args.port)
    if args.host is not None or args.port is not None:
        raise UserError("--host, --port: only with --watch, which serves the page")
    from tuning.dashboard.sources import source_of

    source = source_of(args.uris)
    page = source.page(source.update()).html()
    out = args.out or Path(f"{source.name}.html")
    with writing(out) as partial:
        partial.write_text(page, encoding="utf-8")
    print(f"written to {out}: {source.summary}")
    return 0
