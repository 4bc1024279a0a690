"""What follows when a port comes, changes or goes, for whatever reason.

Invariant: the fast path, the addresses learned and the controllers are all told of the same change.
"""

from __future__ import annotations

from appliance.openflow.messages import PortStatus
from appliance.switch.controllers import Controllers
from appliance.switch.effects import Effect
from appliance.switch.fast_path import FastPath
from appliance.switch.ports import Ports


class PortChanges:
    """Tells everyone."""

    def __init__(self, ports: Ports, fast_path: FastPath, controllers: Controllers) -> None:
        self._ports = ports
        self._fast_path = fast_path
        self._controllers = controllers

    def announce(self, status: PortStatus | None, now: float) -> list[Effect]:
        """``status`` is what ``Ports`` returned for the change: None if there was none."""
        if status is None:
            return []
        number = status.port.number
        effects: list[Effect] = []
        port = self._ports.get(number)
        if port is not None:
            effects.append(port.update())
        if not self._ports.forwards(number):
            effects += self._fast_path.forget_port(number, now)
        effects += self._controllers.port_status(status)
        return effects
