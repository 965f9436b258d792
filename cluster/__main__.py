"""Command line: python -m cluster VERB ..."""

import sys
from collections.abc import Sequence

from data_shards.command_line import Verb, run_verb

VERBS = {
    "train": Verb("cluster.train", "train a run, or continue it"),
    "translate": Verb("cluster.translate", "translate a folder of any size, on this machine or on a Ray cluster"),
    "submit": Verb("cluster.submit", "send a run, or a translation, to a cluster and follow its log"),
    "status": Verb("cluster.status", "show the state of runs, from their storage alone"),
    "copy": Verb("cluster.copy_run", "copy a run to another place"),
    "remove": Verb("cluster.remove", "delete a run"),
    "compare": Verb("cluster.compare", "draw two runs side by side: loss curves, and translations of held-out images"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return run_verb(
        "python -m cluster",
        "Train NLA-CycleGAN on this machine or on a Ray cluster.",
        VERBS,
        argv,
        interrupted="interrupted: run the same command again to continue",
    )


if __name__ == "__main__":
    sys.exit(main())
