"""What a process may use of a machine's memory, on machines made of files."""

from pathlib import Path

import pytest

from data_shards import control_groups, memory

GB = 10**9


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With 64 GB, of which 40 are available, and no control groups."""
    monkeypatch.setattr(control_groups, "PROC", tmp_path / "proc")
    monkeypatch.setattr(control_groups, "CGROUPS", tmp_path / "cgroup")
    write(
        tmp_path / "proc/meminfo",
        f"MemTotal:  {64 * GB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {40 * GB // 1024} kB\n",
    )
    write(tmp_path / "proc/vmstat", "pgfault 7\noom_kill 3\n")
    return tmp_path


def write(path: Path, text: str | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def about(value: float) -> object:
    return pytest.approx(value, abs=2048)


def test_without_groups_it_is_the_machines(machine: Path) -> None:
    assert memory.total_bytes() == about(64 * GB)
    assert memory.available_bytes() == about(40 * GB)
    assert memory.oom_kills() == 3


def test_version_2_the_tightest_group_counts(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/pod/container")
    pod, container = machine / "cgroup/pod", machine / "cgroup/pod/container"
    write(pod / "memory.max", 16 * GB)
    write(pod / "memory.current", 10 * GB)
    write(pod / "memory.stat", f"anon 5\ninactive_file {2 * GB}")
    write(container / "memory.max", "max")
    write(container / "memory.current", GB)
    write(container / "memory.events", "low 0\noom 9\noom_kill 2")
    assert memory.total_bytes() == 16 * GB
    assert memory.available_bytes() == 8 * GB
    assert memory.oom_kills() == 2


def test_version_1_beside_an_empty_version_2(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/other\n0::/")
    job = machine / "cgroup/memory/job"
    write(job / "memory.limit_in_bytes", 8 * GB)
    write(job / "memory.usage_in_bytes", 7 * GB)
    write(job / "memory.stat", f"inactive_file 1\ntotal_inactive_file {GB}")
    write(job / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1")
    # "no limit" is a number near 2^63.
    write(machine / "cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    assert memory.total_bytes() == 8 * GB
    assert memory.available_bytes() == 2 * GB
    assert memory.oom_kills() == 1


def test_a_container_that_sees_the_hosts_path(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/kubepods/pod7")
    write(machine / "cgroup/memory.max", 4 * GB)
    assert memory.total_bytes() == 4 * GB


def test_a_machine_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_groups, "PROC", tmp_path)
    monkeypatch.setattr(control_groups, "CGROUPS", tmp_path)
    assert memory.available_bytes() == memory.total_bytes() > 0
    assert memory.oom_kills() is None
