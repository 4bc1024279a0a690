"""Translation and execution against an interpreter that knows nothing of megaflows, masks or continuations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pipeline_cases as cases
from hypothesis import event, given, settings
from hypothesis import strategies as st

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
from appliance.model.fields import BY_NAME, ETH_SRC, IN_PORT, IP_TTL, METADATA, MPLS_TTL, VLAN_PRESENT, VLAN_TCI
from appliance.model.megaflow import Controller, Failover, Flood, Forward, PacketInReason, Select, Way
from appliance.model.ports import PortNo
from appliance.model.tunnel import Tunnel
from appliance.packet.execute import Emission, execute
from appliance.packet.meter import METER_DROPS, METER_PASSES, remarked_dscp
from appliance.packet.parse import parse
from appliance.packet.rewrite import Rewriter
from appliance.packet.select import select_way
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import OFPG_ANY, Bucket, GroupHit, GroupType
from appliance.pipeline.mac_table import MacTable, normal
from appliance.pipeline.xlate import NO_COOKIE, Translation, resume, translate, translate_actions
from appliance.switch.megaflows import installable

MANY = settings(max_examples=5 * settings.default.max_examples)
EVERYTHING = st.booleans()

MAC_TABLE = MacTable()
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 2), 0x020000000001), 0.0)
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 3), 0x020000000002), 0.0)

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


def normal_port(key: int) -> Translation:
    return normal(key, MAC_TABLE, 1.0)


class Interpreter:
    """Sections 5.1 to 5.12 word for word, on the bytes of one frame: parses again for every table and action."""

    def __init__(self, pipeline: Pipeline, frame: bytes, in_port: int, live: frozenset[int], tunnel: Tunnel) -> None:
        self.pipeline = pipeline
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
            entry = next((entry for entry in self.tables[table_id] if entry.match.matches(key)), None)
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
        verdict = cases.meter(meter_id, len(self.packet.frame))
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
            for action in normal_port(self.key()).actions:
                assert isinstance(action, Forward | Flood)
                self.emit(action)

    def emit(self, action: Forward | Flood | Controller) -> None:
        self.emissions.append(Emission(action, self.packet.frame, self.queue_id, self.packet.tunnel))


def comparable(emissions: Sequence[Emission], in_order: bool) -> object:
    """A used-up TTL is told by its reason alone: who says so differs (the fast path does not know the entry)."""
    items = [
        (item.action.reason, item.frame)
        if isinstance(item.action, Controller) and item.action.reason is PacketInReason.INVALID_TTL
        else (item.action, item.frame, item.queue_id, item.tunnel)
        for item in emissions
    ]
    return items if in_order else Counter(items)


class Run:
    """A translation executed as the switch does, parsing again where it says so."""

    def __init__(self, pipeline: Pipeline, in_port: int, live: frozenset[int]) -> None:
        self.pipeline = pipeline
        self.in_port = in_port
        self.live = live
        self.emissions: list[Emission] = []
        self.entries: list[FlowEntry | None] = []
        self.hits: list[GroupHit] = []
        self.stopped = False
        self.translations = 0

    def run(self, translation: Translation, frame: bytes, tunnel: Tunnel) -> None:
        self.translations += 1
        assert self.translations < 500
        self.entries += [lookup.entry for lookup in translation.lookups]
        self.hits += translation.hits
        goes_on = [*translation.forks, *([] if translation.again is None else [translation.again])]
        end = Forward(0)
        taken: list[tuple[Select | Failover, Way]] = []
        done = execute(
            frame,
            (*translation.actions, end) if goes_on else translation.actions,
            self.in_port,
            meter=cases.meter,
            port_is_live=self.live.__contains__,
            chosen=lambda *way: taken.append(way),
            tunnel=tunnel,
        )
        for choice, way in taken:
            self.hits += translation.way_hits[choice.group_id, way.bucket]
        rest = done.pop() if done and done[-1].action is end else None
        self.emissions += done
        self.stopped |= any(
            isinstance(item.action, Controller) and item.action.reason is PacketInReason.INVALID_TTL for item in done
        )
        if goes_on and rest is None:
            self.stopped = True
            return
        for again in goes_on:
            assert rest is not None
            assert not installable(translation)
            key = parse(rest.frame, self.in_port, *rest.tunnel).key
            self.run(resume(self.pipeline, again, key, normal_port, self.live.__contains__), rest.frame, rest.tunnel)


def check(run: Run, expected: Interpreter, everything: bool) -> None:
    event(f"emissions {min(len(run.emissions), 3)}, translations {min(run.translations, 4)}")
    assert comparable(run.emissions, not everything) == comparable(expected.emissions, not everything)
    metered = any(entry is not None and entry.meter_id == cases.DROPPING_METER for entry in run.entries)
    if not run.stopped and not metered:
        # A packet that stops is counted in later tables too: its megaflow does not know.
        assert run.entries == expected.entries
        assert Counter(run.hits) == Counter(expected.hits)


@given(cases.RANDOMS, EVERYTHING)
@MANY
def test_frames_leave_as_an_interpreter_would_send_them(rnd: Random, everything: bool) -> None:
    pipeline, frame, in_port = cases.pipeline(rnd, everything), cases.frame(rnd, everything), rnd.choice(cases.IN_PORTS)
    live = frozenset(port for port in (1, 2, 3, PortNo.LOCAL) if rnd.random() < 0.6)
    tunnel = cases.tunnel(rnd)
    expected = Interpreter(pipeline, frame, in_port, live, tunnel)
    expected.run()
    run = Run(pipeline, in_port, live)
    run.run(translate(pipeline, parse(frame, in_port, *tunnel).key, normal_port, live.__contains__), frame, tunnel)
    check(run, expected, everything)


@given(cases.RANDOMS, EVERYTHING)
@MANY
def test_packet_outs_leave_as_an_interpreter_would_send_them(rnd: Random, everything: bool) -> None:
    pipeline, frame = cases.pipeline(rnd, everything), cases.frame(rnd, everything)
    actions = cases.actions(rnd, 7, everything)
    live = frozenset(port for port in (1, 2, 3, PortNo.LOCAL) if rnd.random() < 0.6)
    to_table = rnd.random() < 0.5
    tunnel = cases.tunnel(rnd)
    expected = Interpreter(pipeline, frame, 1, live, tunnel)
    if expected.do_all(actions) and to_table:
        expected.run()
    if to_table:
        actions = (*actions, Output(PortNo.TABLE))
    run = Run(pipeline, 1, live)
    key = parse(frame, 1, *tunnel).key
    run.run(translate_actions(pipeline, key, actions, normal_port, live.__contains__), frame, tunnel)
    check(run, expected, everything)
