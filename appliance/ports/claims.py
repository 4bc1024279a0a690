"""Who has what in a network namespace: an interface has one switch, and a name too.

A claim is an abstract Unix socket. The kernel keeps their names for each network namespace, and takes them away with the process
that made them, however it ends. So what an agent that died has left on an interface is told from what belongs to one that runs.

Invariant: of the switches that run in a namespace, one at most has a claim.
"""

from __future__ import annotations

import socket

from appliance.ports.interface import PortError


class Claims:
    """Those of one switch, in the namespace that they are made in."""

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}

    def take(self, what: str) -> None:
        """``what`` is ``interface/INDEX`` or ``name/NAME``; one that we have stays. Raises PortError if another switch has it."""
        if what in self._held:
            return
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0ofswitch/{what}")
        except OSError as error:
            claim.close()
            raise PortError("another switch that runs here has it: stop that one, or give this one another") from error
        self._held[what] = claim

    def release(self, what: str) -> None:
        """One that we do not have is passed over."""
        claim = self._held.pop(what, None)
        if claim is not None:
            claim.close()

    def close(self) -> None:
        for what in tuple(self._held):
            self.release(what)
