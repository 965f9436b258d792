"""The generator as an ONNX graph of any batch, height and width, and the check that onnxruntime computes what torch computes.

ONNX has no attention of linear memory at this opset: a runtime holds the N x N map of a non-local block, N = H * W / 16
positions, which takes 1 GB at 512 x 512 pixels and 17 GB at 1024 x 1024 (a quarter of it with pooled keys); onnxruntime
holds it twice.
"""

import contextlib
import copy
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from nla_cyclegan.model.generator import Generator

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages for writing and checking a file; checked before the export, which may take a minute."""
OPSET = 18
"""ONNX operator set of the file; onnxruntime reads it from version 1.14 (2023)."""
TOLERANCE = 1e-3
"""Largest difference to torch that passes, in the output's range of 2: an eighth of a step of an 8-bit pixel."""
SIZES = ((1, 3, 8, 8), (2, 3, 64, 64), (1, 3, 64, 100), (3, 3, 52, 24))


def save_onnx(generator: Generator, path: Path) -> None:
    """Write one file: `image` float32 [batch, 3, height, width] in [-1, 1] -> `translation`, the same; sides are multiples of 4.

    A generator whose output is masked has a second result, `mask` [batch, 1, height, width] in 0..1.

    Raises: UserError if the packages of the extra `onnx` are missing.
    """
    for package in PACKAGES:
        _needed(package)
    side = torch.export.Dim
    sizes = {0: side("batch"), 2: 4 * side("height_4", min=2), 3: 4 * side("width_4", min=2)}
    with _quiet():
        program = torch.onnx.export(
            _Outputs(_with_torchs_norms(generator)), (torch.zeros(2, 3, 32, 40),), dynamo=True, opset_version=OPSET,
            input_names=["image"], output_names=_output_names(generator), dynamic_shapes=(sizes,), verbose=False,
        )  # fmt: skip
    assert program is not None
    _forget_origins(program.model)
    program.model.metadata_props["nla_cyclegan.config"] = generator.config.model_dump_json()
    # Weights in the same file: it is a protocol buffer, which holds 2 GB; the paper's generator is 46 MB.
    program.save(str(path), external_data=False)


def check_onnx(
    generator: Generator, path: Path, sizes: Sequence[tuple[int, int, int, int]] = SIZES
) -> dict[tuple[int, int, int, int], float]:
    """Image size [N, 3, H, W] -> the largest difference between onnxruntime's and torch's results for random pixels.

    Raises: UserError if one is over `TOLERANCE`, or onnxruntime is missing.
    """
    runtime = _needed("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = torch.Generator().manual_seed(0)
    differences = {}
    for size in sizes:
        image = torch.rand(size, generator=random) * 2 - 1
        with torch.inference_mode():
            expected = _Outputs(generator)(image)
        results = session.run(_output_names(generator), {"image": image.numpy()})
        both = zip(results, expected, strict=True)
        # torch's maximum of several is NaN where one is.
        differences[size] = torch.stack([(torch.from_numpy(one) - two).abs().max() for one, two in both]).max().item()
        # Not `>`: that is false for a NaN.
        if not differences[size] <= TOLERANCE:
            raise UserError(
                f"onnxruntime and torch differ by {differences[size]:.1e} at {list(size)}; nothing is written"
            )
    return differences


class _Outputs(nn.Module):
    """The outputs of a file's graph: the translation and, where there is one, the mask."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        translation, mask = self.generator.translate(image_BCHW)
        return (translation,) if mask is None else (translation, mask)


def _output_names(generator: Generator) -> list[str]:
    return ["translation"] if generator.config.output == "image" else ["translation", "mask"]


def _with_torchs_norms(generator: Generator) -> Generator:
    """A copy whose instance norms become ONNX's own node, for which runtimes have a kernel, even where ours are written out."""
    plain = copy.deepcopy(generator).eval()
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.InstanceNorm2d):
            plain.set_submodule(name, nn.InstanceNorm2d(module.num_features, eps=module.eps))
    return plain


def _forget_origins(model: Any) -> None:
    """Remove the source lines of this machine that the exporter stores at each node, which differ each time."""
    graph = model.graph
    nodes = list(graph.all_nodes())
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in nodes for value in node.outputs)]
    for noted in [graph, *nodes, *values]:
        noted.metadata_props.clear()


def _needed(package: str) -> Any:
    # onnxruntime reads this at import; otherwise it writes a temporary file and sends telemetry.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"--format onnx needs the package {package}: pip install 'nla-cyclegan[onnx]'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress, torch's deprecations and messages about operators, none of which concern the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
