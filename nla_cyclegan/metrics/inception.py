"""The feature extractor of FID and KID: torch-fidelity's Inception v3, as in Heusel et al. 2017, from a weight file.

Nothing is downloaded: a missing file is an error that says how to get it.
"""

import hashlib
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_shards.errors import UserError

FEATURES = 2048
"""Length of a feature vector, the output of the last pooling layer."""
BATCH = 16
AUTO, NONE = "auto", "none"


class Inception:
    """Feature vectors of images.

    Args:
        file: its weights, as torch-fidelity publishes them.

    Attributes:
        sha256: of the file.
        published: whether it is the file behind published FID and KID values; values of other files compare only with each other.

    Raises: UserError when torch-fidelity is missing, or the file is missing or holds something else.
    """

    def __init__(self, file: Path) -> None:
        module = _torch_fidelity()
        _check_safe(file)
        try:
            network = module.FeatureExtractorInceptionV3("inception-v3-compat", [str(FEATURES)], str(file))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise _not_weights(file, error) from error
        self.device = torch.device("cpu")
        self.network: torch.nn.Module = network
        with file.open("rb") as stream:
            self.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        # In torch's hub, file names end with the first digits of the SHA-256.
        self.published = self.sha256.startswith(Path(module.URL_INCEPTION_V3).stem.rpartition("-")[2])

    def to(self, device: torch.device) -> "Inception":
        """The same, computing there."""
        self.device = device
        self.network.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] of any size -> [N, 2048] on the CPU; resized inside as the original TensorFlow graph does."""
        return torch.cat([self.network(batch.to(self.device))[0].cpu() for batch in images_NCHW.split(BATCH)])


def find_inception(choice: str) -> Inception | None:
    """The network that the user chose.

    Args:
        choice: a weight file; `none`; or `auto`: the file in torch's hub cache and, where it is missing, None after a
            line on stderr that says how to get it.

    Raises: UserError when a chosen or cached file cannot be used.
    """
    if choice == NONE:
        return None
    if choice != AUTO:
        return Inception(Path(choice).expanduser())
    try:
        cached = cached_weights()
    except UserError as error:
        print(f"KID and FID are left out: {error}", file=sys.stderr)
        return None
    return Inception(cached)


def cached_weights() -> Path:
    """The weight file in torch's hub cache. Raises: UserError that says how to get it if it is missing."""
    url = _torch_fidelity().URL_INCEPTION_V3
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        raise UserError(f"no Inception weights; download {url} to {file}, or name the file with --inception")
    return file


def _torch_fidelity() -> Any:
    try:
        return import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise UserError(f"torch-fidelity cannot be imported ({error}): pip install 'nla-cyclegan[metrics]'") from error


def _check_safe(file: Path) -> None:
    """Refuse a file that could run code: torch-fidelity reads it with an unrestricted unpickler."""
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    # Damaged bytes make it raise nearly anything (UnpicklingError, IndexError, KeyError, UnicodeDecodeError, EOFError).
    except Exception as error:
        raise _not_weights(file, error) from error


def _not_weights(file: Path, error: Exception) -> UserError:
    # The rest of torch's message recommends the unpickler that runs code.
    reason = str(error).partition("\n")[0].partition(". ")[0]
    return UserError(f"{file}: not torch-fidelity's Inception weights ({type(error).__name__}: {reason})")
