"""In which tier a megaflow's packets are dealt with, and why not in a faster one: for ``ofswitch megaflows``.

Invariant: it is what ``datapath`` does with them, but for packets of which only they themselves tell: those are in ``exceptions``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from appliance.datapath.compile import compile_actions
from appliance.datapath.driver import ONE_PIECE_MTU, DatapathPort
from appliance.datapath.layout import MegaflowFlag, number_at
from appliance.model.actions import Meter
from appliance.model.fields import IN_PORT, PLUGIN_BITS
from appliance.model.megaflow import Megaflow, is_again
from appliance.model.ports import Hook

PortAt = Callable[[int], tuple[DatapathPort, str] | None]
"""A port by its number, and why it has its hook."""


class Tier(NamedTuple):
    """``name`` is xdp, tc or slow_path; ``why`` says why it is no faster one, and is empty for xdp."""

    name: str
    why: str
    exceptions: tuple[str, ...] = ()
    """Packets that a slower tier gets."""


def tier_of(megaflow: Megaflow, port_at: PortAt, shown: Callable[[int], str]) -> Tier:
    """``shown`` is how a port's number is written."""
    # The fast path has the meters of all live megaflows.
    meters = {action.meter_id: 0 for action in megaflow.actions if isinstance(action, Meter)}
    number = IN_PORT.get(megaflow.key)
    compiled = compile_actions(megaflow.actions, meters, parsed_again=is_again(number))
    if compiled.flags & MegaflowFlag.PUNT:
        return Tier("slow_path", compiled.reason)
    exceptions = []
    if compiled.ttl_needed:
        exceptions.append("slow path: a TTL that is used up")
    if compiled.flags & MegaflowFlag.POPS:
        exceptions.append("slow path: a third tag")
    if compiled.flags & MegaflowFlag.PUSHES_MPLS:
        exceptions.append("slow path: frames still to be cut, with two tags")
    if is_again(number):
        return Tier("tc", "it is the rest of what is done to packets that are parsed again", tuple(exceptions))
    came_in = port_at(number)
    if came_in is None:
        return Tier("tc", f"port {shown(number)} is gone")
    why = _why_of_port(shown(number), *came_in) or compiled.reason or _why_of_packets(megaflow.mask, shown(number), came_in[0])
    out = number_at(compiled.xdp_port)
    sent_to = port_at(out) if out else None
    if not why and out and (sent_to is None or not sent_to[0].xdp_transmit):
        why = f"port {shown(out)} takes nothing from XDP"
    if not why and came_in is not None and came_in[0].mtu > ONE_PIECE_MTU:
        exceptions.append("tc: long frames, which come in pieces")
    return Tier("tc" if why else "xdp", why, tuple(exceptions))


def _why_of_port(name: str, port: DatapathPort, hook_reason: str) -> str:
    """What keeps all that comes in there from XDP; empty if nothing does."""
    return "" if port.hook is Hook.XDP else f"port {name} is at TC ({hook_reason})"


def _why_of_packets(mask: int, name: str, port: DatapathPort) -> str:
    """What of the packets does, where the actions do not."""
    if not port.finished:
        return f"frames come in on port {name} with checksums or tags still open"
    return "it depends on a plug-in's match" if mask & PLUGIN_BITS.mask else ""
