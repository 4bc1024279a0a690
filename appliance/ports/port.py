"""An interface described as a port of the switch (struct ofp_port)."""

from __future__ import annotations

from appliance.model.ports import Port, PortConfig, PortState
from appliance.ports.ethtool import LinkSpeed, link_speed
from appliance.ports.interface import Interface


def describe(interface: Interface, number: int, config: PortConfig = PortConfig.NONE, speed: LinkSpeed | None = None) -> Port:
    """``config`` is what the controller set; ``speed`` None asks the driver. The state is live or down, as the interface is."""
    known = link_speed(interface.name) if speed is None else speed
    return Port(
        number=number,
        name=interface.name,
        hw_addr=interface.mac,
        config=config,
        state=PortState.LIVE if interface.up else PortState.LINK_DOWN,
        curr=int(known.curr),
        advertised=int(known.advertised),
        supported=int(known.supported),
        peer=int(known.peer),
        curr_speed=known.curr_kbps,
        max_speed=known.max_kbps,
    )
