"""OpenFlow's pipeline word for word, on the bytes of one frame: what every other way of working it out is compared with.

Invariant: nothing here knows megaflows, masks or continuations, and nothing is remembered from packet to packet.
Source: OpenFlow Switch Specification 1.3.5, sections 5.1 to 5.12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    DecNwTtl,
    GotoTable,
    Group,
    Meter,
    Output,
    PopMpls,
    PopPbb,
    PopVlan,
    PushMpls,
    PushPbb,
    PushVlan,
    SetField,
    SetMplsTtl,
    SetNwTtl,
    SetQueue,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, IP_TTL, METADATA, MPLS_TTL, VLAN_PRESENT, VLAN_TCI
from appliance.model.megaflow import Controller, Flood, Forward, PacketInReason, Way
from appliance.model.ports import PortNo
from appliance.model.tunnel import NO_TUNNEL, Tunnel
from appliance.packet.execute import Emission
from appliance.packet.meter import METER_DROPS, METER_PASSES, RunMeter, remarked_dscp
from appliance.packet.parse import parse
from appliance.packet.rewrite import Rewriter
from appliance.packet.select import select_way
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import OFPG_ANY, Bucket, GroupHit, GroupType
from appliance.pipeline.xlate import NO_COOKIE, Translation

IN_SET_ORDER: tuple[tuple[type[Action], ...], ...] = (
    (CopyTtlIn,),
    (PopPbb,),
    (PopVlan,),
    (PopMpls,),
    (PushMpls,),
    (PushPbb,),
    (PushVlan,),
    (CopyTtlOut,),
    (DecMplsTtl, DecNwTtl),
    (SetField, SetMplsTtl, SetNwTtl),
    (SetQueue,),
    (Group,),
    (Output,),
)


def passes(meter_id: int, octets: int) -> int:
    """A meter that no packet exceeds."""
    return METER_PASSES


class Interpreter:
    """One frame; parses again for every table and action.

    ``live`` are the ports that are (OFPPS_LIVE). ``meter`` says what becomes of a packet of so many bytes (as ``RunMeter``), and
    ``normal_port`` what OFPP_NORMAL is for a flow key.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        frame: bytes,
        in_port: int,
        live: frozenset[int],
        tunnel: Tunnel = NO_TUNNEL,
        *,
        meter: RunMeter = passes,
        normal_port: Callable[[int], Translation] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._run_meter = meter
        self._normal_port = normal_port
        self.tables = {table.table_id: sorted(table.entries(), key=lambda entry: -entry.priority) for table in pipeline}
        self.packet = Rewriter(frame, in_port, tunnel=tunnel)
        self.in_port = in_port
        self.live = live
        self.metadata = 0
        self.queue_id: int | None = None
        self.emissions: list[Emission] = []
        self.entries: list[FlowEntry | None] = []
        self.hits: list[GroupHit] = []
        self.origin = Controller(PacketInReason.ACTION, 0, NO_COOKIE, 0)

    def key(self) -> int:
        return METADATA.put(parse(self.packet.frame, self.in_port, *self.packet.tunnel).key, self.metadata)

    def run(self) -> None:
        table_id: int | None = 0
        written: list[tuple[Action, Controller]] = []
        while table_id is not None:
            key = self.key()
            entry = next((entry for entry in self.tables.get(table_id, ()) if entry.match.matches(key)), None)
            self.entries.append(entry)
            if entry is None:
                return
            reason = PacketInReason.NO_MATCH if entry.priority == 0 else PacketInReason.ACTION
            self.origin = Controller(reason, table_id, entry.cookie, 0)
            by_type = {type(instruction): instruction for instruction in entry.instructions}
            metering = by_type.get(Meter)
            if isinstance(metering, Meter) and not self.meter(metering.meter_id):
                return
            apply = by_type.get(ApplyActions)
            if isinstance(apply, ApplyActions) and not self.do_all(apply.actions):
                return
            if ClearActions in by_type:
                written.clear()
            write = by_type.get(WriteActions)
            if isinstance(write, WriteActions):
                self.write(written, write.actions)
            metadata = by_type.get(WriteMetadata)
            if isinstance(metadata, WriteMetadata):
                self.metadata = self.metadata & ~metadata.metadata_mask | metadata.metadata
            goto = by_type.get(GotoTable)
            table_id = goto.table_id if isinstance(goto, GotoTable) else None
        self.run_set(written)

    def write(self, written: list[tuple[Action, Controller]], actions: Sequence[Action]) -> None:
        for action in actions:
            place = next((at for at, (old, _) in enumerate(written) if self.same_slot(old, action)), None)
            if place is None:
                written.append((action, self.origin))
            else:
                written[place] = (action, self.origin)

    def run_set(self, written: list[tuple[Action, Controller]]) -> None:
        grouped = any(isinstance(action, Group) for action, _ in written)
        for kinds in IN_SET_ORDER:
            for action, self.origin in [item for item in written if isinstance(item[0], kinds)]:
                if not (grouped and isinstance(action, Output)) and not self.do(action):
                    return

    @staticmethod
    def same_slot(one: Action, other: Action) -> bool:
        if isinstance(one, SetField) and isinstance(other, SetField):
            return one.field == other.field
        return type(one) is type(other)

    def do_all(self, actions: Sequence[Action]) -> bool:
        return all(self.do(action) for action in actions)

    def do(self, action: Action) -> bool:
        packet = self.packet
        match action:
            case Output(port, max_len):
                self.output(port, max_len)
            case SetField(field, value):
                packet.set_field(field, value)
            case SetNwTtl(ttl):
                packet.set_field(IP_TTL, ttl)
            case SetMplsTtl(ttl):
                packet.set_field(MPLS_TTL, ttl)
            case PushVlan(ethertype):
                tci = VLAN_TCI.get(self.key())
                packet.push_tag(ethertype, tci & ~VLAN_PRESENT if tci & VLAN_PRESENT else 0)
            case PopVlan():
                packet.pop_tag()
            case PushMpls(ethertype):
                packet.push_mpls(ethertype)
            case PopMpls(ethertype):
                packet.pop_mpls(ethertype)
            case PushPbb(ethertype):
                packet.push_pbb(ethertype)
            case PopPbb():
                packet.pop_pbb()
            case CopyTtlIn():
                packet.copy_ttl_in()
            case CopyTtlOut():
                packet.copy_ttl_out()
            case SetQueue(queue_id):
                self.queue_id = queue_id
            case Group(group_id):
                self.group(group_id)
            case DecNwTtl() | DecMplsTtl():
                if not (packet.dec_ttl() if isinstance(action, DecNwTtl) else packet.dec_mpls_ttl()):
                    self.emit(Controller(PacketInReason.INVALID_TTL, 0, 0, 0))
                    return False
            case _:
                raise AssertionError(action)
        return True

    # ── groups and meters ──────────────────────────────────────────────────────────────────────────────────────────────
    def group(self, group_id: int) -> None:
        group = self.pipeline.groups.get(group_id)
        if group is None:
            return
        self.hits.append(GroupHit(group))
        buckets = list(group.buckets)
        if group.type is GroupType.SELECT:
            live = [bucket for bucket in buckets if self.bucket_is_live(bucket, ())]
            weighted = any(bucket.weight for bucket in live)
            ways = [Way(buckets.index(bucket), (), bucket.weight if weighted else 1) for bucket in live]
            way = select_way(self.key(), [way for way in ways if way.weight])
            buckets = [] if way is None else [buckets[way.bucket]]
        elif group.type is GroupType.FF:
            buckets = [bucket for bucket in buckets if self.bucket_is_live(bucket, ())][:1]
        for bucket in buckets:
            self.hits.append(GroupHit(group, bucket))
            packet, origin, queue_id = self.packet, self.origin, self.queue_id
            self.packet = Rewriter(packet.frame, self.in_port, tunnel=packet.tunnel)
            self.origin = replace(origin, reason=PacketInReason.ACTION)
            written: list[tuple[Action, Controller]] = []
            self.write(written, bucket.actions)
            self.run_set(written)
            self.packet, self.origin, self.queue_id = packet, origin, queue_id

    def bucket_is_live(self, bucket: Bucket, watching: tuple[int, ...]) -> bool:
        if bucket.watch_port == PortNo.ANY and bucket.watch_group == OFPG_ANY:
            return True
        group = None if bucket.watch_group in watching else self.pipeline.groups.get(bucket.watch_group)
        if group is not None and any(self.bucket_is_live(other, (*watching, group.group_id)) for other in group.buckets):
            return True
        return bucket.watch_port in self.live

    def meter(self, meter_id: int) -> bool:
        if meter_id not in self.pipeline.meters:
            return True
        verdict = self._run_meter(meter_id, len(self.packet.frame))
        if verdict > METER_PASSES:
            field = BY_NAME["ip_dscp"]
            dscp = field.get(self.key())
            if remarked_dscp(dscp, verdict) != dscp:
                self.packet.set_field(field, remarked_dscp(dscp, verdict))
        return verdict != METER_DROPS

    # ── outputs ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def output(self, port: int, max_len: int) -> None:
        if port < 100 or port == PortNo.LOCAL:
            if port != self.in_port:
                self.emit(Forward(port))
        elif port in (PortNo.ALL, PortNo.FLOOD):
            self.emit(Flood())
        elif port == PortNo.IN_PORT:
            self.emit(Forward(self.in_port))
        elif port == PortNo.CONTROLLER:
            origin = self.origin
            self.emit(Controller(origin.reason, origin.table_id, origin.cookie, max_len, self.metadata))
        elif port == PortNo.NORMAL:
            assert self._normal_port is not None
            for action in self._normal_port(self.key()).actions:
                assert isinstance(action, Forward | Flood)
                self.emit(action)

    def emit(self, action: Forward | Flood | Controller) -> None:
        self.emissions.append(Emission(action, self.packet.frame, self.queue_id, self.packet.tunnel))
