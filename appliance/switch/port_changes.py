"""What follows when a port comes, changes or goes, for whatever reason.

Invariant: the fast path, the addresses learned and the controllers are all told of the same change.
"""

from __future__ import annotations

from appliance.openflow.messages import PortMod, PortStatus
from appliance.switch.controllers import Controllers
from appliance.switch.effects import Advertise, Effect
from appliance.switch.fast_path import FastPath
from appliance.switch.ports import Ports


class PortChanges:
    """Tells everyone."""

    def __init__(self, ports: Ports, fast_path: FastPath, controllers: Controllers) -> None:
        self._ports = ports
        self._fast_path = fast_path
        self._controllers = controllers

    def configure(self, mod: PortMod, now: float) -> list[Effect]:
        """OFPT_PORT_MOD. Raises ProtocolError, having changed nothing."""
        effects = self.announce(self._ports.configure(mod), now)
        port = self._ports.get(mod.port_no)
        if port is not None and mod.advertise not in (0, port.port.advertised):
            effects.append(Advertise(mod.port_no, mod.advertise))
        return effects

    def announce(self, status: PortStatus | None, now: float) -> list[Effect]:
        """``status`` is what ``Ports`` returned for the change: None if there was none."""
        if status is None:
            return []
        number = status.port.number
        effects: list[Effect] = []
        port = self._ports.get(number)
        if port is not None:
            effects.append(port.update())
        self._fast_path.megaflows.port_liveness_changed(number)
        if not self._ports.forwards(number):
            effects += self._fast_path.forget_port(number, now)
        effects += self._controllers.port_status(status)
        return effects
