"""Writes a record of 16 bytes at an offset of a UDP packet's payload: time (ns, CLOCK_TAI), hop, port it came in on."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.model.plugin import Argument, Plugin, PluginAction


def check(arguments: Mapping[str, int]) -> str:
    return "the offset must be even, or the checksum could not follow" if arguments["offset"] % 2 else ""


PLUGIN = Plugin(
    id=1,
    action=PluginAction(arguments=(Argument("hop", 4), Argument("offset", 2)), check=check),
    counters=("stamped", "no_room"),
)
