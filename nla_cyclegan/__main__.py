"""Command line: python -m nla_cyclegan VERB ..."""

import sys
from collections.abc import Sequence

from data_shards.command_line import Verb, run_verb

VERBS = {
    "translate": Verb("nla_cyclegan.commands.translate", "translate image files to the other domain"),
    "evaluate": Verb(
        "nla_cyclegan.commands.evaluate",
        "measure translations against held-out images of the other domain and their own inputs",
    ),
    "show": Verb(
        "nla_cyclegan.show", "serve a local page: drop a photo, and see it painted by any checkpoint of a run"
    ),
    "export": Verb(
        "nla_cyclegan.commands.export",
        "write generators for other programs: safetensors, ONNX, the layout of pytorch-CycleGAN-and-pix2pix, Hugging Face Hub",
    ),
    "import-weights": Verb(
        "nla_cyclegan.commands.import_weights", "convert weights of pytorch-CycleGAN-and-pix2pix to this format"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    return run_verb(
        "python -m nla_cyclegan", "Translate images with trained generators, and measure the results.", VERBS, argv
    )


if __name__ == "__main__":
    sys.exit(main())
