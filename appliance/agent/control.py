"""The control socket: what ``ofswitch show`` and its like ask the running agent.

A Unix stream socket, for its owner only (mode 0600). Each request is one line of JSON, ``{"command": NAME, …}``; each answer
is one line, ``{"ok": true, "result": …}`` or ``{"ok": false, "error": TEXT}``. ``client.ControlClient`` speaks it.

=============  ==========================================================================================================
command        result
=============  ==========================================================================================================
``show``       ``{name, datapath_id: "16 hex digits", fail_mode, standalone: is it forwarding by itself, pid, uptime: s,
               versions: {ofswitch, openflow, kernel, python}, ports: n, flows: n, megaflows: n, megaflow_limit: n, masks: n,
               prefetched: n,
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
               punted: packets that came up, last_used: s ago, tier: "xdp"|"tc"|"slow_path", why: text (why no
               faster one), exceptions: [text] (packets for a slower one)}]}``; argument ``limit`` (default 1000)
``ports``      ``[{number, interface, state: "up"|"down"|"missing", link, problem: text (what others took off it, and why that is
               not back; empty if all is there), config: [text], hw_addr, mtu, speed_kbps,
               hook: "xdp"|"tc", hook_reason, output: "redirect"|"redirect_peer", output_reason, big_tcp: true|false,
               big_tcp_reason, counters: {rx_packets, rx_bytes, tx_packets, tx_bytes, xdp, tc, slow_path,
               dropped, tx_slow_path, lost_copies: of a full queue}}]``; a missing one has the first three only
``plugins``    ``[{name, source: path, id, state: "works"|"left out", fault: null or text, arguments: null or ["name/bytes"],
               plugin_bits: null or the mask of its match, counters: {name: n}}]``
``stop``       ``null``; the agent then stops as on SIGTERM
=============  ==========================================================================================================

Invariant: no request, however long or wrong, stops the agent or keeps it from its packets.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any

from appliance.agent.green import Greenlet, spawn, wait_readable
from appliance.agent.unix_socket import UnixListener, send_all

LOG = logging.getLogger("ofswitch.control")

MAX_REQUEST_BYTES = 1 << 16
READ_BYTES = 1 << 14

Handler = Callable[[Mapping[str, Any]], Any]
"""Takes the request, returns the result; raises CommandError."""


class CommandError(Exception):
    """A request that cannot be answered; the text says why."""


class ControlServer:
    """Listens from the moment it is made. Raises UnixSocketError, also if another agent answers there."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._listener = UnixListener(path)
        self._clients: set[Greenlet] = set()
        self._acceptor: Greenlet | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._acceptor = spawn(self._listener.accept_all, self._begin)

    def close(self) -> None:
        """Stop answering, and take the socket away."""
        for greenlet in (self._acceptor, *self._clients):
            if greenlet is not None:
                greenlet.kill()
        self._listener.close()

    def _begin(self, client: socket.socket) -> None:
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
                        send_all(client, json.dumps(self.answer(line)).encode() + b"\n")
                        continue
                    wait_readable(client.fileno())
                    data = client.recv(READ_BYTES)
                    if not data:
                        return
                    received += data
                send_all(client, json.dumps(_refusal(f"a request has at most {MAX_REQUEST_BYTES} bytes")).encode() + b"\n")
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
