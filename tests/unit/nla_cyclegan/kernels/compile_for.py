"""Compile every kernel at the network's shapes for a GPU that is not there, in a process of its own: the tests' interprets.

python compile_for.py CAPABILITY    prints a JSON object: kernel -> the most registers, bytes of stack and of shared memory of
                                    its variants, and whether one of them loads no tile ahead by cp.async
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton

from nla_cyclegan.kernels.compilation.ahead import compiling
from nla_cyclegan.kernels.layers.bias import bias_act
from nla_cyclegan.kernels.layers.conv7 import conv7_to_few, conv7_to_many
from nla_cyclegan.kernels.layers.losses import l1, lsgan
from nla_cyclegan.kernels.layers.norm import norm_act, norm_act_both
from nla_cyclegan.kernels.layers.pad import reflect_pad
from nla_cyclegan.kernels.optimizer.ema import Averages
from nla_cyclegan.kernels.optimizer.step_count import StepCount
from nla_cyclegan.kernels.optimizer.update import Gradients, Update

BF16 = torch.bfloat16


def features(c: int, side: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    x = torch.empty((2, c, side, side), dtype=dtype, device="meta")
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def backward(*results: torch.Tensor) -> None:
    torch.autograd.backward(results, [torch.empty_like(y) for y in results])


def launch_all() -> None:
    for dtype in (BF16, torch.float32):
        backward(*norm_act_both(features(256, 64, dtype), features(256, 64, dtype), slope=1, pad=1))
    backward(*norm_act_both(features(256, 64), pad=1))
    backward(norm_act(features(64, 256), pad=3))
    backward(norm_act(features(512, 31), slope=0.2))
    backward(reflect_pad(features(3, 256, torch.float32), 3, channels=4, dtype=BF16))
    few, bias = torch.empty((3, 64, 7, 7), device="meta", requires_grad=True), torch.empty(3, device="meta")
    backward(conv7_to_many(features(4, 262), few.transpose(0, 1)))
    backward(conv7_to_few(features(64, 262), few, bias))
    backward(bias_act(features(64, 128) * 1, torch.empty(64, device="meta", requires_grad=True), slope=0.2))
    backward(l1(features(3, 256), features(3, 256, torch.float32)), lsgan(features(1, 30), 1.0))
    optimizer()


def optimizer() -> None:
    # The table of addresses is a real one; what it points at is never read.
    parameters = [torch.empty(n) for n in (20_000, 3)]
    update = Update(parameters, parameters, parameters, beta1=0.5, beta2=0.999)
    averages = Averages(parameters, parameters)
    for tensors in (update.tensors, averages.tensors):
        tensors.device = torch.device("meta")
        for name in ("table", "chunks"):
            setattr(tensors, name, getattr(tensors, name).to("meta"))
    gradients = Gradients(parameters, torch.empty(2, dtype=torch.int64, device="meta"), aligned=True)
    update.grad_norm(gradients)
    count = StepCount(*[[torch.ones((), dtype=torch.float64)]] * 2, beta1=0.5, beta2=0.999, momentum_decay=0.004)
    count.addresses, count.constants = ([each.to("meta") for each in count.addresses], count.constants.to("meta"))
    norm, rate, applies = (
        torch.empty((), dtype=dtype, device="meta") for dtype in (torch.float32, torch.float64, torch.bool)
    )
    update.apply(gradients, count.advance(norm, rate, applies, 1.0), applies)
    averages.update(rate, applies)


def resources(kernel: Any) -> dict[str, int]:
    """Registers a thread; bytes of stack and local memory, where what finds no register is spilled to; shared memory of a program."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    use = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {
        "registers": use["REG"],
        "stack": use["STACK"] + use["LOCAL"],
        "shared": kernel.metadata.shared,
        "not_ahead": "cp.async" not in kernel.asm["ptx"],
    }


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        with compiling(int(sys.argv[1])) as found:
            launch_all()
        worst: dict[str, dict[str, int]] = {}
        for name, kernel in {kernel.hash: (name, kernel) for name, kernel in found}.values():
            uses = worst.setdefault(name, {})
            uses.update({use: max(value, uses.get(use, 0)) for use, value in resources(kernel).items()})
    print(json.dumps(worst))


if __name__ == "__main__":
    main()
