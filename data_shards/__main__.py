"""Command line: python -m data_shards VERB ..."""

import sys
from collections.abc import Sequence

from data_shards.command_line import Verb, run_verb

VERBS = {
    "synth": Verb("data_shards.synthetic.synth", "draw an unpaired dataset of photographs and paintings"),
    "download": Verb("data_shards.download.monet2photo", "fetch monet2photo"),
    "pack": Verb(
        "data_shards.packing.pack", "image folders -> WebDataset shards with index and manifest, on disk or in a bucket"
    ),
    "index": Verb("data_shards.checking.index", "make a dataset of existing WebDataset tars, without rewriting them"),
    "verify": Verb("data_shards.checking.verify", "read every byte of a dataset again and name what is bad"),
    "inspect": Verb("data_shards.commands.inspect", "what a dataset holds, and the order in which a stream reads it"),
    "bench": Verb(
        "data_shards.commands.bench",
        "measure how fast a dataset is read, next to stock webdataset, a JPEG folder and Ray Data",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    return run_verb(
        "python -m data_shards",
        "Unpaired image datasets as WebDataset shards.",
        VERBS,
        argv,
        interrupted="interrupted: run the same command again to complete it",
    )


if __name__ == "__main__":
    sys.exit(main())
