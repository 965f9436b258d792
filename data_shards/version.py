"""The version of this code: of all four packages, installed or in a clone."""

import platform

__version__ = "0.1.0"
LIBRARIES = ("torch", "ray")


def versions_text() -> str:
    """One line for `--version`: of this code, Python and the libraries that matter most, none of which is imported."""
    # It takes longer to import than the rest of `--help`.
    from importlib.metadata import PackageNotFoundError, version

    found = [f"nla-cyclegan {__version__}", f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"{library} not installed")
    return ", ".join(found)
