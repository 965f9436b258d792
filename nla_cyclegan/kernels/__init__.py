"""The networks and optimizers on a GPU, called another way: Triton kernels for all that lies between cuDNN's convolutions.

The modules of the model, their parameters and names stay; `networks` calls them with what is here. Nothing outside this
package needs Triton, and within it only the files with kernels import it: ask `coverage.why_not` first.

Every kernel stands beside its equation and the bytes it moves; none uses
atomics: sums are split over programs in a way that depends on shapes alone, and merged in one order, so that bits repeat.
"""

import os

# Products and sums may fuse to one rounding, as in cuDNN; Triton's default for this changes after 3.9.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
