"""torchvision's decoder of JPEG and PNG files, without the rest of torchvision.

`import torchvision` imports all of its models and, for them, torch's compiler: 2 s and 160 MB of each process that reads images.
"""

from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

# torchvision.io.ImageReadMode.RGB.value
RGB = 3
# Of torchvision since 0.29, and before.
LIBRARIES = ("image_stable", "image")

Decoder = Callable[[Tensor, int], Tensor]


@cache
def decoder() -> Decoder:
    """The function `torchvision.io.decode_image`, or the operator that it calls: bytes as uint8 [n] and a mode -> uint8 [c, H, W].

    It raises RuntimeError for bytes that do not decode. Raises: ImportError without torchvision.
    """
    torchvision = PathFinder.find_spec("torchvision")
    for folder in (torchvision.submodule_search_locations or []) if torchvision else []:
        for file in (Path(folder, name + suffix) for name in LIBRARIES for suffix in EXTENSION_SUFFIXES):
            if file.exists() and (operator := _operator(file)):
                return operator
    return _imported()


def _operator(file: Path) -> Decoder | None:
    """The operator of that library, None where it does not load by itself or has another name."""
    try:
        torch.ops.load_library(file)
        return cast(Decoder, torch.ops.image.decode_image)
    except (OSError, AttributeError):
        return None


def _imported() -> Decoder:
    from torchvision.io import ImageReadMode, decode_image

    return lambda data, mode: decode_image(data, ImageReadMode(mode))
