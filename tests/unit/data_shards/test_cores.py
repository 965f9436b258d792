"""The cores of a process in containers, on machines made of files."""

import os
from pathlib import Path

import pytest

from data_shards import control_groups
from data_shards.cores import usable_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With 16 cores, all of which this process may run on."""
    monkeypatch.setattr(control_groups, "PROC", tmp_path / "proc")
    monkeypatch.setattr(control_groups, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_without_groups_it_is_the_affinity(machine: Path) -> None:
    assert usable_cores() == 16


@pytest.mark.parametrize(
    ("own", "around", "cores"),
    [
        ("max 100000", "max 100000", 16),
        ("400000 100000", "max 100000", 4),
        ("max 100000", "250000 100000", 2),
        ("50000 100000", "", 1),
        ("3200000 100000", "", 16),
    ],
)
def test_version_2_the_smallest_quota_counts(machine: Path, own: str, around: str, cores: int) -> None:
    write(machine / "proc/self/cgroup", "0::/pod/container")
    write(machine / "cgroup/pod/container/cpu.max", own)
    if around:
        write(machine / "cgroup/pod/cpu.max", around)
    assert usable_cores() == cores


@pytest.mark.parametrize("tree", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [("-1", 16), ("300000", 3), ("30000", 1)])
def test_version_1(machine: Path, tree: str, quota: str, cores: int) -> None:
    write(machine / "proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/job\n0::/")
    write(machine / f"cgroup/{tree}/job/cpu.cfs_quota_us", quota)
    write(machine / f"cgroup/{tree}/job/cpu.cfs_period_us", "100000")
    assert usable_cores() == cores


def test_a_container_that_sees_its_own_group_as_the_root(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/../../host/path")
    write(machine / "cgroup/cpu.max", "200000 100000")
    assert usable_cores() == 2


@pytest.mark.parametrize("level", ["job", "job/step", "job/step/task"])
def test_a_quota_at_any_level_counts(machine: Path, level: str) -> None:
    write(machine / "proc/self/cgroup", "0::/job/step/task")
    for part in ("job", "job/step", "job/step/task"):
        write(machine / "cgroup" / part / "cpu.max", "300000 100000" if part == level else "max 100000")
    assert usable_cores() == 3


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"), [(2, "800000", 2), (8, "200000", 2), (1, "max", 1), (3, "99999", 1)]
)
def test_the_smaller_of_affinity_and_quota_counts(
    machine: Path, monkeypatch: pytest.MonkeyPatch, affinity: int, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(affinity)))
    write(machine / "proc/self/cgroup", "0::/")
    write(machine / "cgroup/cpu.max", f"{quota} 100000")
    assert usable_cores() == cores


@pytest.mark.parametrize("text", ["", "max", "x y", "0 100000", "100000 0"])
def test_what_is_no_quota_limits_nothing(machine: Path, text: str) -> None:
    write(machine / "proc/self/cgroup", "0::/")
    write(machine / "cgroup/cpu.max", text)
    assert usable_cores() == 16


def test_version_1_in_a_container_shows_its_own_group_by_both_names(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "11:cpuset:/docker/abc\n4:cpuacct,cpu:/docker/abc\n1:name=systemd:/docker/abc")
    write(machine / "cgroup/cpuacct,cpu/cpu.cfs_quota_us", "600000")
    write(machine / "cgroup/cpuacct,cpu/cpu.cfs_period_us", "200000")
    assert usable_cores() == 3
