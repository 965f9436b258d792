"""The protocol between a launcher and its machine's fork server, over an abstract Unix socket.

The socket's name is random, and each side checks that the other one belongs to the same user: nobody else is answered, and
nothing is left behind. Nothing listens on a network.
"""

import json
import os
import socket
import struct
from typing import Any

# struct ucred of Linux: process, user, group.
CREDENTIALS = struct.Struct("3i")
LENGTH = struct.Struct("!I")


def address_of(name: str) -> bytes:
    """The address of the fork server of that name, in Linux's abstract namespace."""
    return b"\0nla-cyclegan-fork-" + name.encode()


def is_own(connection: socket.socket) -> bool:
    """Whether the process at the other end belongs to the user of this one."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return bool(CREDENTIALS.unpack(credentials)[1] == os.getuid())


def send(connection: socket.socket, message: Any, descriptors: tuple[int, ...] = ()) -> None:
    """Send a message of JSON values, and open files with it."""
    content = json.dumps(message).encode()
    # A descriptor travels with a byte at least: the length goes ahead with them.
    socket.send_fds(connection, [LENGTH.pack(len(content))], descriptors)
    connection.sendall(content)


def receive(connection: socket.socket, descriptors: int = 0) -> tuple[Any, list[int]]:
    """The next message and its open files. Raises: EOFError when the other side has closed."""
    head, files, _, _ = socket.recv_fds(connection, LENGTH.size, descriptors)
    try:
        (length,) = LENGTH.unpack(head + _exactly(connection, LENGTH.size - len(head)))
        return json.loads(_exactly(connection, length)), files
    except EOFError:
        for file in files:
            os.close(file)
        raise


def _exactly(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        part = connection.recv(length - len(content))
        if not part:
            raise EOFError("the connection is closed")
        content += part
    return content
