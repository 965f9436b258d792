"""Which addresses the processes of a run listen on, as Linux tells it in /proc."""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LISTENS = "0A"


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for other in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            parent = int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(other))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def listeners(pid: int) -> set[tuple[str, int, str]]:
    """Address, port and command of each TCP socket on which the process or a descendant of it takes connections."""
    inodes = {inode: (address, port) for inode, address, port in _all_listeners()}
    return {
        (*inodes[inode], command_line(member)[:80])
        for member in family(pid)
        for inode in _sockets(member)
        if inode in inodes
    }


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _all_listeners() -> Iterator[tuple[str, str, int]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENS:
                address, _, port = local.partition(":")
                yield inode, _readable(address), int(port, 16)


def _readable(address: str) -> str:
    """Four or sixteen bytes in hexadecimal, each word of four in this machine's order."""
    words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
    parsed = ipaddress.ip_address(b"".join(words))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if target.startswith("socket:["):
                    yield target[8:-1]
