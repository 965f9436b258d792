import pytest
import torch

if torch.cuda.is_available():
    from triton_mode import import_anew

    import_anew(interpret=False)


@pytest.fixture(autouse=True)
def _gpu():
    """A GPU, exact fp32, and new memory full of NaN, so that what a kernel leaves unwritten shows."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = before
