"""`python -m tuning dashboard`: a sweep as one HTML page, which opens from disk, or is served while the sweep runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_shards.errors import UserError
from data_shards.storage.files import writing
from tuning.analysis.results import read_results

HOST, PORT = "127.0.0.1", 8050


def main(arguments: Sequence[str]) -> int:
    """Raises: UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning dashboard",
        description="Write a sweep as one HTML page: ranking, learning curves, importance of fields, cost, previews.",
    )
    parser.add_argument("uri", metavar="URI", help="the sweep's folder: STORAGE/NAME")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: NAME.html, here)")
    parser.add_argument(
        "--watch", action="store_true", help="serve the page instead, and update it while the sweep runs"
    )
    parser.add_argument("--host", default=HOST, help=f"with --watch: address to listen on (default: {HOST})")
    parser.add_argument("--port", type=int, default=PORT, help=f"with --watch: port; 0: any free one (default: {PORT})")
    args = parser.parse_args(arguments)
    if args.watch:
        if args.out:
            raise UserError("--out: not allowed with --watch, which serves the page instead of writing it")
        from tuning.dashboard.serve import serve

        return serve(args.uri, args.host, args.port)
    from tuning.dashboard.page import render

    results = read_results(args.uri)
    out = args.out or Path(f"{results.folder.name}.html")
    with writing(out) as partial:
        partial.write_text(render(results, args.uri), encoding="utf-8")
    print(f"written to {out}: {len(results.trials)} trials")
    return 0
