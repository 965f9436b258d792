"""The settings of the runs here: loader processes, and 200 steps between two checkpoints."""

from typing import Any

BATCH = 4
INTERVAL = 200  # Steps between two checkpoints.
# Where most faults strike: in the middle between two checkpoints. Images, as all that follows.
STRIKE = BATCH * (INTERVAL + INTERVAL // 2)
# Of a lost worker or node, whose work the others still have in memory.
REPEATED_FROM_MEMORY = INTERVAL // 50

CHANGES: dict[str, Any] = {
    "data": {"loader_workers": 1},
    "schedule": {"images": 2 * BATCH * INTERVAL},
    "checkpoint": {"every": BATCH * INTERVAL},
    "observe": {"every": BATCH},
}
# Ray needs some seconds for notices and for growing.
LONG = {**CHANGES, "schedule": {"images": 4 * BATCH * INTERVAL}}
# For runs whose number of workers changes on the way. Sums over two workers and over one differ in their last bits, and
# training makes more of it, except with networks that take their time and steps so small that the last bits stay the last
# ones; to skip a step would still be seen.
EXACT = {
    **LONG,
    "step": {"precision": "fp64", "pool_size": 0},
    "optimizer": {"lr": 1e-5},
    "model": {
        "generator": {"base_channels": 12, "num_blocks": 2, "nonlocal_blocks": [1]},
        "discriminator": {"base_channels": 12, "num_layers": 1},
    },
}
