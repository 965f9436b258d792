"""The command line of the package: python -m nla_cyclegan VERB ..."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from data_shards.errors import UserError

VERBS = {
    "translate": "paint image files in the style of the other domain",
    "evaluate": "measure translations against held-out paintings and their own photos",
    "export": "write a generator to one file: safetensors, ONNX, or the layout of pytorch-CycleGAN-and-pix2pix",
    "import-weights": "take over weights of pytorch-CycleGAN-and-pix2pix",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its module is only imported now, so that the list of verbs needs no torch."""
    width = max(map(len, VERBS))
    parser = argparse.ArgumentParser(
        prog="python -m nla_cyclegan",
        description="Translate images with trained generators, and measure the results.",
        epilog="\n".join(["verbs:", *(f"  {verb:{width}}  {text}" for verb, text in VERBS.items())])
        + "\n\npython -m nla_cyclegan VERB --help says more about one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help=" | ".join(VERBS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the verb's own arguments")
    args = parser.parse_args(argv)

    module = importlib.import_module(f"nla_cyclegan.commands.{args.verb.replace('-', '_')}")
    verb_parser = argparse.ArgumentParser(prog=f"{parser.prog} {args.verb}", description=VERBS[args.verb])
    module.add_arguments(verb_parser)
    try:
        status: int = module.run(verb_parser.parse_args(args.arguments))
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


if __name__ == "__main__":
    sys.exit(main())
