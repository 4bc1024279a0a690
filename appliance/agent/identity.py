"""What the switch is called, where the configuration leaves it open: from its version, this machine, and the ports' interfaces.

Invariant: the same configuration on the same machine gives the same.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket

from appliance.agent.links import Links
from appliance.config import Config
from appliance.openflow.messages import Desc
from appliance.ports import LocalSpec


def version() -> str:
    """Of the program."""
    try:
        return importlib.metadata.version("ofswitch")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def description(config: Config) -> Desc:
    """OFPMP_DESC."""
    return Desc(
        mfr_desc="ofswitch",
        hw_desc=f"eBPF on Linux {os.uname().release}",
        sw_desc=f"ofswitch {version()}, Python {platform.python_version()}",
        serial_num="None",
        dp_desc=config.name,
    )


def derived_datapath_id(config: Config, links: Links) -> int:
    """The first port's MAC address; without one, a number that this host and name always give."""
    names = {interface.name: interface.mac for interface in links.known.values()}
    for spec in config.ports:
        mac = int.from_bytes(names.get(spec.interface, b""), "big")
        if mac:
            return mac
    return int.from_bytes(hashlib.sha256(f"{socket.gethostname()}/{config.name}".encode()).digest()[:6], "big") or 1


def local_spec(config: Config, datapath_id: int) -> LocalSpec | None:
    """OFPP_LOCAL's interface. Its MAC address is always the same for a datapath id, and none of the ports'."""
    if config.local_interface is None:
        return None
    mac = bytearray(hashlib.sha256(f"OFPP_LOCAL {datapath_id:016x}".encode()).digest()[:6])
    mac[0] = mac[0] & 0xFC | 0x02  # locally administered, of one station
    return LocalSpec(config.local_interface, bytes(mac), config.name)
