"""Execution of datapath actions: one frame in, the frames that leave, in order. The reference for every tier.

Invariant: an emission's frame is the packet as it was at that moment; what comes after does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from appliance.model.actions import (
    OFPCML_NO_BUFFER,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    Meter,
    PopMpls,
    PopPbb,
    PushMpls,
    PushPbb,
    SetField,
    SetQueue,
)
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import (
    Again,
    CallPlugin,
    Clone,
    Controller,
    DatapathAction,
    DecTtl,
    Failover,
    Flood,
    Forward,
    PacketInReason,
    PopTag,
    PushTag,
    Select,
    Way,
)
from appliance.model.tunnel import NO_TUNNEL, Tunnel
from appliance.packet.meter import METER_DROPS, METER_PASSES, RunMeter, remarked_dscp
from appliance.packet.parse import parse
from appliance.packet.rewrite import Rewriter
from appliance.packet.select import select_way

INVALID_TTL = Controller(PacketInReason.INVALID_TTL, table_id=0xFF, cookie=0xFFFFFFFFFFFFFFFF, max_len=OFPCML_NO_BUFFER)
"""What becomes of a packet whose TTL DecTtl or DecMplsTtl finds used up (0 or 1). No flow entry sent it up: its table and cookie
are all ones."""

Chosen = Callable[[Select | Failover, Way], None]
"""Told which way a packet took."""
RunPlugin = Callable[[int, bytes, bytes, int], bytes | None]
"""``model.plugin.Plugins.run``."""

_IP_DSCP = BY_NAME["ip_dscp"]


@dataclass(frozen=True, slots=True)
class Emission:
    """The packet leaves by ``action``, or is to be parsed again: who does that knows the ports. ``frame`` has its tags in it.

    ``queue_id`` is that of the last SetQueue, None if there was none. ``tunnel`` holds the packet's tunnel fields as they are then.
    """

    action: Forward | Flood | Controller | Again
    frame: bytes
    queue_id: int | None = None
    tunnel: Tunnel = NO_TUNNEL


def execute(
    frame: bytes,
    actions: Sequence[DatapathAction],
    in_port: int,
    partial_checksum: bool = False,
    *,
    metered: bool = False,
    meter: RunMeter | None = None,
    port_is_live: Callable[[int], bool] | None = None,
    chosen: Chosen | None = None,
    plugin: RunPlugin | None = None,
    dropped: Callable[[int], None] | None = None,
    tunnel: Tunnel = NO_TUNNEL,
) -> list[Emission]:
    """What ``actions`` make of ``frame``; empty if the packet is dropped. What each action does is in ``packet.rewrite``.

    The execution ends early at a DecTtl or DecMplsTtl that finds the TTL used up, with INVALID_TTL as the last emission; and,
    without one, where a meter or a plug-in drops the packet: ``dropped`` is told at which of those that the list has (of its own,
    not of copies'), from 0. ``partial_checksum`` says that TCP or UDP holds only the pseudo-header's sum
    (``checksum.is_partial``); it then does so in every emission too. Tags from metadata must be in the frame, the packet's tunnel
    fields in ``tunnel``.

    ``meter`` runs the meters and ``plugin`` the plug-ins; without them all packets pass. ``metered`` says that the fast path has
    run the meters that stand before everything else. Without ``port_is_live`` all ports are. Raises ValueError for a SetField that
    no flow entry can have.
    """
    execution = _Execution(in_port, partial_checksum, meter, port_is_live, chosen, plugin)
    skipped = sum(1 for _ in takewhile(lambda action: isinstance(action, Meter), actions)) if metered else 0
    packet = Rewriter(frame, in_port, partial_checksum=partial_checksum, tunnel=tunnel)
    stopped = execution.run(packet, actions[skipped:], None)
    if stopped is not None and dropped is not None:
        dropped(skipped + stopped)
    return execution.emissions


class _Execution:
    """One packet and its copies."""

    __slots__ = ("_chosen", "_in_port", "_meter", "_partial_checksum", "_plugin", "_port_is_live", "emissions")

    def __init__(
        self,
        in_port: int,
        partial_checksum: bool,
        meter: RunMeter | None,
        port_is_live: Callable[[int], bool] | None,
        chosen: Chosen | None,
        plugin: RunPlugin | None,
    ) -> None:
        self.emissions: list[Emission] = []
        self._in_port = in_port
        self._partial_checksum = partial_checksum
        self._meter = meter
        self._port_is_live = port_is_live
        self._chosen = chosen
        self._plugin = plugin

    def run(self, packet: Rewriter, actions: Sequence[DatapathAction], queue_id: int | None) -> int | None:
        """Where a meter or a plug-in dropped the packet, the number of those before it; else None."""
        passed = 0
        for action in actions:
            match action:
                case Forward() | Flood() | Controller():
                    self.emissions.append(Emission(action, packet.frame, queue_id, packet.tunnel))
                case SetField(field=field, value=value):
                    packet.set_field(field, value)
                case PushTag(tpid=tpid, tci=tci):
                    packet.push_tag(tpid, tci)
                case PopTag():
                    packet.pop_tag()
                case PushMpls(ethertype=ethertype):
                    packet.push_mpls(ethertype)
                case PopMpls(ethertype=ethertype):
                    packet.pop_mpls(ethertype)
                case PushPbb(ethertype=ethertype):
                    packet.push_pbb(ethertype)
                case PopPbb():
                    packet.pop_pbb()
                case CopyTtlOut():
                    packet.copy_ttl_out()
                case CopyTtlIn():
                    packet.copy_ttl_in()
                case SetQueue(queue_id=queue_id):
                    pass
                case DecTtl() | DecMplsTtl():
                    if not (packet.dec_ttl() if isinstance(action, DecTtl) else packet.dec_mpls_ttl()):
                        self.emissions.append(Emission(INVALID_TTL, packet.frame, queue_id, packet.tunnel))
                        return None
                case Meter(meter_id=meter_id):
                    if not self._passes(packet, meter_id):
                        return passed
                    passed += 1
                case CallPlugin():
                    if self._plugin is not None:
                        frame = self._plugin(action.plugin_id, action.arguments, packet.frame, self._in_port)
                        if frame is None:
                            return passed
                        packet = self._copy(packet, frame)
                    passed += 1
                case Clone(actions=copied):
                    self.run(self._copy(packet, packet.frame), copied, queue_id)
                case Again():
                    self.emissions.append(Emission(action, packet.frame, queue_id, packet.tunnel))
                    return None
                case Select() | Failover():
                    way = self._choose(packet, action)
                    if way is not None:
                        if self._chosen is not None:
                            self._chosen(action, way)
                        self.run(packet, way.actions, queue_id)
                    return None
        return None

    def _copy(self, packet: Rewriter, frame: bytes) -> Rewriter:
        return Rewriter(frame, self._in_port, partial_checksum=self._partial_checksum, tunnel=packet.tunnel)

    def _passes(self, packet: Rewriter, meter_id: int) -> bool:
        verdict = METER_PASSES if self._meter is None else self._meter(meter_id, len(packet.frame))
        if verdict == METER_DROPS:
            return False
        if verdict != METER_PASSES:
            dscp = _IP_DSCP.get(parse(packet.frame, self._in_port).key)
            remarked = remarked_dscp(dscp, verdict)
            if remarked != dscp:
                packet.set_field(_IP_DSCP, remarked)
        return True

    def _choose(self, packet: Rewriter, action: Select | Failover) -> Way | None:
        if isinstance(action, Select):
            return select_way(parse(packet.frame, self._in_port).key, action.ways)
        live = self._port_is_live
        return next((way for way in action.ways if not way.watch_port or live is None or live(way.watch_port)), None)
