"""The version of this code: of all four packages, installed or in a clone."""

import hashlib
import platform
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"
LIBRARIES = ("torch", "ray")
# What a run's weights depend on.
OF_A_RUN = ("data_shards", "nla_cyclegan", "cluster")


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits of the modules of the packages that train a run, wherever they lie: another edit, other digits."""
    digest = hashlib.sha256()
    for package in OF_A_RUN:
        spec = find_spec(package)
        assert spec is not None, package
        assert spec.origin is not None, package
        folder = Path(spec.origin).parent
        for file in sorted(folder.rglob("*.py")):
            content = file.read_bytes()
            digest.update(f"{package}/{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def versions_text() -> str:
    """One line for `--version`: of this code, Python and the libraries that matter most, none of which is imported."""
    # It takes longer to import than the rest of `--help`.
    from importlib.metadata import PackageNotFoundError, version

    found = [f"nla-cyclegan {__version__} (code {code_digest()})", f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"{library} not installed")
    return ", ".join(found)
