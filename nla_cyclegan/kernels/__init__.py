"""Triton kernels for everything between cuDNN's convolutions, and for the optimizer.

The model's modules, parameters and names stay as they are; `networks` is another way to call them. Only files with kernels
import Triton: call `coverage.why_not` before importing them.

The head of each file gives the kernels' equations and the bytes that they move. No kernel uses atomics: how a sum is split
over programs depends on shapes alone, and the parts are added in a fixed order, so results repeat bit for bit.
"""

import os

# A product and a sum may be rounded once, as in cuDNN. Triton's default for this changes after 3.9.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
