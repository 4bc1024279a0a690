"""The control socket: what ``ofswitch show`` and its like ask the running agent.

A Unix stream socket, for its owner only (mode 0600). Each request is one line of JSON, ``{"command": NAME, …}``; each answer
is one line, ``{"ok": true, "result": …}`` or ``{"ok": false, "error": TEXT}``. ``client.ControlClient`` speaks it.

=============  ==========================================================================================================
command        result
=============  ==========================================================================================================
``show``       ``{name, datapath_id: "16 hex digits", fail_mode, standalone: is it forwarding by itself, pid, uptime: s,
               versions: {ofswitch, openflow, kernel, python}, ports: n, flows: n, megaflows: n,
               controllers: [{target, state: "connected"|"connecting"|"disconnected", …}],
               listening: ["ptcp:…"], integrated_controller: null or {apps: […], pid: n or null, restarts: n},
               tiers: {packets: {xdp, tc, slow_path, dropped}, shares: the same as fractions of 1, rx_packets, rx_bytes},
               drops: {reason: n}, upcalls: {reason: n}, dropped_packet_ins: n, faults: n}``. A connected controller also has
               ``version: "1.3", security: null or "TLSv1.3, NAME", seconds, dropped_packet_ins, backlog: bytes``,
               a disconnected one ``problem: text``
``tiers``      ``show``'s ``tiers`` alone, for those who ask often
``flows``      ``{total: n, flows: [{table_id, priority, match: [[field, value, mask or null], …], match_text, instructions: text,
               cookie: "0x…", n_packets, n_bytes, duration: s, idle_age: s, idle_timeout, hard_timeout, flags: [text]}]}``;
               arguments ``table`` (number) and ``limit`` (default 1000)
``megaflows``  ``{total: n, megaflows: [{id, match, match_text, actions: text, packets, bytes: those of the fast path,
               punted: packets that came up, last_used: s ago, tier: "xdp"|"tc"|"slow_path"}]}``; argument ``limit``
               (default 1000)
``ports``      ``[{number, interface, state: "up"|"down"|"missing", link, config: [text], hw_addr, mtu, speed_kbps,
               hook: "xdp"|"tc", hook_reason, counters: {rx_packets, rx_bytes, tx_packets, tx_bytes, xdp, tc, slow_path,
               dropped, tx_slow_path}}]``; a missing one has the first three only
``stop``       ``null``; the agent then stops as on SIGTERM
=============  ==========================================================================================================

Invariant: no request, however long or wrong, stops the agent or keeps it from its packets.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from appliance.agent.green import Greenlet, spawn, wait_readable, wait_writable

LOG = logging.getLogger("ofswitch.control")

MAX_REQUEST_BYTES = 1 << 16
READ_BYTES = 1 << 14

Handler = Callable[[Mapping[str, Any]], Any]
"""Takes the request, returns the result; raises CommandError."""


class CommandError(Exception):
    """A request that cannot be answered; the text says why."""


class ControlSocketError(Exception):
    """The socket cannot be made; the text says why and what to do."""


class ControlServer:
    """Listens from the moment it is made. Raises ControlSocketError, also if another agent answers there."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = handlers
        self._socket = _listen(path)
        self._inode = os.stat(path).st_ino
        self._clients: set[Greenlet] = set()
        self._acceptor: Greenlet | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._acceptor = spawn(self._accept)

    def close(self) -> None:
        """Stop answering, and take the socket away."""
        for greenlet in (self._acceptor, *self._clients):
            if greenlet is not None:
                greenlet.kill()
        self._socket.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            return

    def _accept(self) -> None:
        while True:
            wait_readable(self._socket.fileno())
            try:
                client, _ = self._socket.accept()
            except OSError as error:
                LOG.warning("%s: %s", self.path, error.strerror)
                continue
            client.setblocking(False)
            greenlet = spawn(self._serve, client)
            self._clients.add(greenlet)
            greenlet.link(self._clients.discard)

    def _serve(self, client: socket.socket) -> None:
        received = b""
        with client:
            try:
                while len(received) < MAX_REQUEST_BYTES:
                    line, newline, rest = received.partition(b"\n")
                    if newline:
                        received = rest
                        _send(client, json.dumps(self.answer(line)).encode() + b"\n")
                        continue
                    wait_readable(client.fileno())
                    data = client.recv(READ_BYTES)
                    if not data:
                        return
                    received += data
                _send(client, json.dumps(_refusal(f"a request has at most {MAX_REQUEST_BYTES} bytes")).encode() + b"\n")
            except OSError:
                return  # the client has gone

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one request."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return _refusal(f"not JSON: {error}")
        if not isinstance(request, dict):
            return _refusal('a request is an object, as {"command": "show"}')
        command = request.get("command")
        handler = self._handlers.get(command) if isinstance(command, str) else None
        if handler is None:
            return _refusal(f"no command {command!r}; there are {', '.join(self._handlers)}")
        try:
            return {"ok": True, "result": handler(request)}
        except CommandError as error:
            return _refusal(str(error))
        except Exception as error:
            LOG.exception("%s: cannot be answered", command)
            return _refusal(f"a fault of the switch: {type(error).__name__}: {error}")


def _refusal(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}


def _send(client: socket.socket, data: bytes) -> None:
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
        raise ControlSocketError(f"{path}: cannot make the control socket: {error.strerror or error}") from error
    except ControlSocketError:
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
        raise ControlSocketError(f"{path}: is there already and is no socket; name another by control_socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise ControlSocketError(f"{path}: another switch answers there; stop it, or give this one another name")
