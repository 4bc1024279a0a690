"""Asks a running agent: one request and one answer over its control socket. Blocking, and free of eventlet.

Invariant: what comes back is the agent's answer to this request, or an exception that says in words why there is none.
The answers' schema is in ``control``.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class ControlError(Exception):
    """The agent could not be asked, or refused; the text is for the user."""


class ControlClient:
    """One connection to an agent's control socket, opened by the first request. ``timeout`` is in seconds, for each answer."""

    def __init__(self, path: str | Path, timeout: float = 10.0) -> None:
        self.path = str(path)
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._received = b""

    def request(self, command: str, **arguments: Any) -> Any:
        """The result of one command; raises ControlError."""
        try:
            connection = self._connect()
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            answer = json.loads(self._line(connection))
        except TimeoutError as error:
            self.close()
            raise ControlError(f"{self.path}: no answer within {self._timeout:g} s; the switch is busy or stuck") from error
        except OSError as error:
            self.close()
            raise ControlError(f"{self.path}: {error.strerror or error}") from error
        except ValueError as error:
            self.close()
            raise ControlError(f"{self.path}: what answers there is not an ofswitch agent: {error}") from error
        if not isinstance(answer, dict) or not answer.get("ok"):
            raise ControlError(str(answer.get("error")) if isinstance(answer, dict) else f"{self.path}: not an answer: {answer!r}")
        return answer.get("result")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _connect(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self._timeout)
            try:
                connection.connect(self.path)
            except FileNotFoundError:
                connection.close()
                raise ControlError(f"{self.path}: no such socket; is the switch running, with that name?") from None
            except ConnectionRefusedError:
                connection.close()
                raise ControlError(f"{self.path}: nobody answers; the switch that made it is gone") from None
            except PermissionError:
                connection.close()
                raise ControlError(f"{self.path}: permission denied; only the user who runs the switch may ask it") from None
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def _line(self, connection: socket.socket) -> bytes:
        while b"\n" not in self._received:
            data = connection.recv(1 << 16)
            if not data:
                raise OSError("the agent closed the connection")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line
