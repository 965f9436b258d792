"""What Linux's control groups, of both versions, allow this process: containers and job schedulers set their limits there."""

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups for a controller ("memory", "cpu"): its own, then their parents, as far as they
    are visible.
    """
    for line in lines(PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 1 has a tree for each set of controllers, by both names where there are two in one.
        trees = [CGROUPS / controller, CGROUPS / controllers] if controllers else [CGROUPS]
        root = next((tree for tree in trees if tree.is_dir()), trees[0])
        folder = root / path.lstrip("/")
        # In some containers the path is the host's, and what is mounted is the container's own group.
        folder = folder if folder.is_dir() else root
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(root))


def number(folder: Path, names: tuple[str, ...]) -> int | None:
    """The number in the first of these files that exists; None without such a file, or for no limit ("max")."""
    word = next((found[0] for name in names if (found := lines(folder / name))), "")
    return int(word) if word.isdigit() else None


def table(file: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number in each line, by name."""
    rows = (line.split() for line in lines(file))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def machine(name: str) -> dict[str, int]:
    """The numbers in a file of /proc, such as "meminfo", by their names."""
    return table(PROC / name)


def lines(file: Path) -> list[str]:
    """The lines of a text file; empty if it cannot be read."""
    try:
        return file.read_text("utf-8").splitlines()
    except OSError:
        return []
