"""Triton decides when a kernel is read whether it will be interpreted: the mode has to be chosen before the first import.

Other tests' libraries import Triton too (torchmetrics does), in whatever order the tests are collected. So it is imported
anew here, its compiled library apart, and after it the package's kernels.
"""

import dataclasses
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace


def import_anew(*, interpret: bool) -> None:
    """From here on Triton and the kernels are read for the interpreter, which runs on the CPU, or for a GPU."""
    for name in list(sys.modules):
        library = name.startswith("triton._C")
        if not library and (name.partition(".")[0] == "triton" or name.startswith("nla_cyclegan.kernels.")):
            del sys.modules[name]
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = str(int(interpret))
    try:
        import triton.experimental.gluon  # noqa: F401  (which the first launch would import)

        import nla_cyclegan.kernels.compilation.ahead
        import nla_cyclegan.kernels.optimizer.ema
        import nla_cyclegan.kernels.optimizer.step_count
        import nla_cyclegan.kernels.optimizer.update  # noqa: F401
    finally:
        # What is started from here shall not interpret.
        os.environ.pop("TRITON_INTERPRET")
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before
    if interpret:
        _indices_of_one_element()
        _language_patched_once()
        _sums_unchecked()


def _indices_of_one_element() -> None:
    """Newer numpy makes an int only of arrays without dimensions; the scalars of Triton's interpreter have one (to 3.6)."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: object, *scope: object) -> None:
        patch(tensor, *scope)
        (scope[0].set_attr if scope else setattr)(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


def _language_patched_once() -> None:
    """Triton replaces its language's functions by interpreted ones anew at each call of each function of a kernel, which takes
    most of the interpreter's time. What has been imported here is never compiled: once for each module is enough.
    """
    from triton.runtime import interpreter

    patch, done = interpreter._patch_lang, set[str]()

    def patched(function: Callable[..., object]) -> SimpleNamespace:
        if function.__module__ not in done:
            done.add(function.__module__)
            patch(function)
        return SimpleNamespace(restore=lambda: None)

    interpreter._patch_lang = patched


def _sums_unchecked() -> None:
    """The interpreter does each sum and product of integers again in 64 bits, half of its time, to find an overflow of 32. Its
    cases have some thousand elements: none can be found.
    """
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
