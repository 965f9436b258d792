"""`python -m data_shards VERB`: the front door. Each verb's module is imported when it is called."""

import argparse
import os
import sys
from importlib import import_module

from data_shards.errors import UserError

VERBS = {
    "synth": "draw an unpaired dataset of photographs and paintings",
    "download": "fetch monet2photo",
    "pack": "image folders -> WebDataset shards with index and manifest, on disk or in a bucket",
    "bench": "how fast a dataset is read, beside stock webdataset, a JPEG folder and Ray Data",
    "index": "plain WebDataset tars of somebody else -> a dataset, without rewriting them",
    "verify": "read every byte of a dataset again and name what is bad",
    "inspect": "what a dataset holds, and the order a stream reads it in",
}
HOMES = {
    "synth": "synthetic.synth",
    "download": "download.monet2photo",
    "pack": "packing.pack",
    "index": "checking.index",
    "verify": "checking.verify",
    "inspect": "commands.inspect",
    "bench": "commands.bench",
}


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m data_shards", description="Unpaired image datasets as WebDataset shards."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    named = arguments[0] if arguments else None
    for verb, summary in VERBS.items():
        options = verbs.add_parser(verb, help=summary, description=summary)
        if verb == named:
            module = import_module(f"data_shards.{HOMES[verb]}")
            module.add_arguments(options)
    args = parser.parse_args(arguments)
    try:
        status = module.run(args)
        # Here, not at the end of the interpreter, where a broken pipe is a traceback.
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `| head` has read enough; without this the interpreter complains when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted: run the same command again to complete it", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
