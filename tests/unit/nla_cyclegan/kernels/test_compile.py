"""Every kernel compiles for A100 and H100 without a GPU, and keeps to its registers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
KERNELS = {
    "_moments", "_normalize", "_grad_sums", "_grad_apply", "_pad", "_pad_grad", "_pack", "_spread", "_few_to_many",
    "_many_to_few", "_sum_taps", "_outer", "_square_sums", "_move",
}  # fmt: skip


@pytest.mark.parametrize("capability", [80, 90])
def test_no_kernel_spills(capability):
    command = [sys.executable, str(HERE / "compile_for.py"), str(capability)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout)
    assert used.keys() == KERNELS
    for name, (registers, stack_bytes) in used.items():
        assert registers <= 255, name
        assert stack_bytes == 0, f"{name} spills {stack_bytes} bytes a thread"
