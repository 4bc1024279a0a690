"""Unix stream sockets that the agent listens on, each for its owner only (mode 0600).

Invariant: a socket's file is there while the agent listens on it, and what a dead agent left is no hindrance.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from appliance.agent.accept import accept_all
from appliance.agent.green import wait_writable


class UnixSocketError(Exception):
    """The socket cannot be made; the text says why and what to do."""


class UnixListener:
    """Listens from the moment it is made. Raises UnixSocketError, also if another agent answers there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = _listen(path)
        self._inode = os.stat(path).st_ino

    def accept_all(self, begin: Callable[[socket.socket], None]) -> None:
        """Hand each client's connected socket, which does not block, to ``begin``. Never returns."""

        def begin_with(client: socket.socket, _: object) -> None:
            client.setblocking(False)
            begin(client)

        accept_all(self._socket, self.path, begin_with)

    def close(self) -> None:
        """Listen no more, and take the socket away."""
        self._socket.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            return


def send_all(client: socket.socket, data: bytes) -> None:
    """Waits for the client to take it. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[client.send(rest) :]
        except BlockingIOError:
            wait_writable(client.fileno())


def _listen(path: str) -> socket.socket:
    """A listening socket in place of what a dead agent may have left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(Path(path).parent, mode=0o755, exist_ok=True)
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UnixSocketError(f"{path}: cannot make the socket: {error.strerror or error}") from error
    except UnixSocketError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _remove_stale(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UnixSocketError(f"{path}: is there already and is no socket; name another by control_socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise UnixSocketError(f"{path}: another switch answers there; stop it, or give this one another name")
