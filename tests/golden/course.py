"""The course that tests/golden pins: 20 steps on the CPU, fp32, one thread, on images drawn from integers.

python tests/golden/course.py        writes tests/golden/course.json anew: after a change that is meant to change numbers
"""

import json
import platform
from pathlib import Path
from typing import Any

import torch

from nla_cyclegan import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainingStep,
)
from nla_cyclegan.pixels import keyed_generator

FILE = Path(__file__).with_name("course.json")
STEPS, BATCH, SIZE = 20, 2, 32


def compute() -> list[dict[str, float]]:
    """The losses of each step."""
    model = ModelConfig(
        generator=GeneratorConfig(base_channels=8, num_blocks=3, nonlocal_blocks=(1,)),
        discriminator=DiscriminatorConfig(base_channels=8, num_layers=2),
    )
    step = TrainingStep(
        model, LossConfig(), OptimizerConfig(lr=2e-4), StepConfig(pool_size=6), seed=0, global_batch=BATCH
    )
    course = []
    for k in range(STEPS):
        images = torch.randint(
            0, 256, (2, BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=keyed_generator(7, k % 5)
        )
        losses = step(images[0], images[1], images_seen=BATCH * k, lr=2e-4 * (1 - k / STEPS))
        course.append({name: value.item() for name, value in losses.items()})
    return course


def circumstances() -> dict[str, Any]:
    """What the last bits of the numbers depend on."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The model of the CPU: kernels are chosen by it beyond the capability that torch tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    parts = [known.get(key, "?") for key in ("vendor_id", "cpu family", "model")]
    return f"{platform.machine()} {' '.join(parts)}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps({"made_with": circumstances(), "losses": compute()}, indent=1) + "\n")
    print(f"wrote {FILE}")
