"""Kernels compiled ahead by several processes, without a GPU."""

import time

import pytest

from nla_cyclegan import DiscriminatorConfig, GeneratorConfig, ModelConfig
from nla_cyclegan.kernels import ahead

MODEL = ModelConfig(
    generator=GeneratorConfig(base_channels=8, num_blocks=0, nonlocal_blocks=()),
    discriminator=DiscriminatorConfig(base_channels=8, num_layers=1),
)


def compile_all(pairs: int = 1) -> float:
    began = time.perf_counter()
    ahead.CompileAhead(MODEL, "bf16", pairs=pairs, size=32, capability=90).wait()
    return time.perf_counter() - began


def test_a_machine_compiles_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compile_all()
    compiled = {file.stem for file in tmp_path.rglob("*.cubin")}
    assert {"_moments", "_normalize", "_grad_sums", "_grad_apply", "_few_to_many", "_many_to_few", "_outer"} <= compiled
    # Nothing is started again, but for another step.
    started: list[object] = []
    monkeypatch.setattr(ahead.subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    compile_all()
    assert started == []
    with pytest.raises(AttributeError):
        compile_all(pairs=2)
    assert started


def test_a_process_that_fails_leaves_the_work_to_the_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(ahead.sys, "executable", "/bin/false")
    compile_all()
    assert list(tmp_path.glob("nla-cyclegan-*")) == []
