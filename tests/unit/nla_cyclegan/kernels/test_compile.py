"""Every kernel compiles for A100 and H100 without a GPU, and keeps to its registers and to the shared memory of smaller GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Half a minute, for what changes with the kernels alone.
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
KERNELS = {
    "channel_moments", "normalize", "grad_sums", "grad_apply", "_pad", "_pad_grad", "pack", "spread", "few_to_many",
    "many_to_few", "outer", "_square_sums", "_update", "_count", "_average", "_bias_act", "_bias_act_grad", "_distance", "_distance_grad",
}  # fmt: skip


CAPABILITIES = [80, 90]


@pytest.fixture(scope="module")
def compiled():
    """Capability -> kernel -> what it uses, as compile_for.py prints it; both at once, in processes of their own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = {}
    for capability in CAPABILITIES:
        command = [sys.executable, str(HERE / "compile_for.py"), str(capability)]
        running[capability] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
    written = {capability: process.communicate() for capability, process in running.items()}
    for capability, process in running.items():
        assert process.returncode == 0, written[capability][1]
    return {capability: json.loads(stdout) for capability, (stdout, _) in written.items()}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills(compiled, capability):
    used = compiled[capability]
    assert used.keys() == KERNELS
    for name, uses in used.items():
        assert uses["registers"] <= 255, name
        assert uses["stack"] == 0, f"{name} spills {uses['stack']} bytes a thread"


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_fits_the_shared_memory_of_an_rtx_3090(compiled, capability):
    assert max(uses["shared"] for uses in compiled[capability].values()) <= 99 * 1024


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_kernels_of_norm_load_the_next_tiles_ahead(compiled, capability):
    for name in ("channel_moments", "normalize", "grad_sums", "grad_apply"):
        assert not compiled[capability][name]["not_ahead"], name
