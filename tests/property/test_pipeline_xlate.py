"""Translation against two obvious things: itself on keys changed outside the mask, and an interpreter of frames."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pipeline_cases as cases
from hypothesis import event, given, settings

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    DecNwTtl,
    GotoTable,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    SetNwTtl,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, ETH_SRC, IN_PORT, IP_TTL, METADATA, TUNNEL_ID, VLAN_PRESENT, VLAN_TCI
from appliance.model.megaflow import Controller, DatapathAction, Flood, Forward, PacketInReason
from appliance.model.ports import PortNo
from appliance.packet.execute import Emission, execute
from appliance.packet.parse import parse
from appliance.packet.rewrite import Rewriter
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.mac_table import MacTable, normal
from appliance.pipeline.xlate import NO_COOKIE, Lookup, Translation, resume, translate, translate_actions

MANY = settings(max_examples=5 * settings.default.max_examples)

MAC_TABLE = MacTable()
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 2), 0x020000000001), 0.0)
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 3), 0x020000000002), 0.0)


def normal_port(key: int) -> Translation:
    return normal(key, MAC_TABLE, 1.0)


# ── mask safety ────────────────────────────────────────────────────────────────────────────────────────────────────────
def assert_same(first: Translation, second: Translation) -> None:
    assert second.actions == first.actions
    assert second.mask == first.mask
    assert second.slow_path_only == first.slow_path_only
    assert (second.again is None) == (first.again is None)
    assert len(second.lookups) == len(first.lookups)
    for one, other in zip(first.lookups, second.lookups, strict=True):
        assert (other.table_id, other.entry, other.known) == (one.table_id, one.entry, one.known)
        assert not (other.key ^ one.key) & one.known
    for one_key, other_key in zip(first.normal_keys, second.normal_keys, strict=True):
        assert not (one_key ^ other_key) & (ETH_SRC.mask | BY_NAME["eth_dst"].mask | BY_NAME["vlan_vid"].mask)


@given(cases.RANDOMS)
@MANY
def test_bits_outside_the_mask_change_nothing(rnd: Random) -> None:
    pipeline, key = cases.pipeline(rnd), cases.flow_key(rnd)
    first = translate(pipeline, key, normal_port)
    assert first.mask & IN_PORT.mask == IN_PORT.mask
    assert not first.mask & METADATA.mask
    event(f"tables {len(first.lookups)}")
    event(f"parse again: {first.again is not None}")
    for _ in range(5):
        assert_same(first, translate(pipeline, cases.flip(rnd, key, ~first.mask & ~METADATA.mask), normal_port))


@given(cases.RANDOMS)
@MANY
def test_bits_outside_the_mask_change_no_packet_out(rnd: Random) -> None:
    pipeline, key, actions = cases.pipeline(rnd), cases.flow_key(rnd), cases.actions(rnd, 6)
    if rnd.random() < 0.5:
        actions = (*actions, Output(PortNo.TABLE))
    first = translate_actions(pipeline, key, actions, normal_port)
    for _ in range(5):
        other = cases.flip(rnd, key, ~first.mask & ~METADATA.mask)
        assert_same(first, translate_actions(pipeline, other, actions, normal_port))


# ── what a change of a table affects ───────────────────────────────────────────────────────────────────────────────────
def changed_by(lookup: Lookup, added: FlowEntry) -> bool:
    """Whether adding this entry could change the look-up's result for some packet of the megaflow, as far as ``known`` says."""
    if lookup.entry is not None and lookup.entry.priority > added.priority:
        return False
    return not (lookup.key ^ added.match.value) & added.match.mask & lookup.known


@given(cases.RANDOMS)
@MANY
def test_an_added_entry_that_changes_a_translation_changes_one_of_its_lookups(rnd: Random) -> None:
    pipeline, key = cases.pipeline(rnd), cases.flow_key(rnd)
    before = translate(pipeline, key, normal_port)
    table = pipeline.table(rnd.randrange(cases.TABLES))
    added = cases.flow_entry(rnd, table.table_id, rnd.choice((100, 2, 0)))
    table.add(added)
    affected = any(changed_by(lookup, added) for lookup in before.lookups if lookup.table_id == table.table_id)
    event(f"affected: {affected}")
    if before.again is None and not affected:
        after = translate(pipeline, cases.flip(rnd, key, ~before.mask & ~METADATA.mask), normal_port)
        assert after.actions == before.actions
        assert [lookup.entry for lookup in after.lookups] == [lookup.entry for lookup in before.lookups]


# ── against an interpreter that knows nothing of megaflows ─────────────────────────────────────────────────────────────
class Interpreter:
    """Sections 5.1 to 5.12 word for word, on the bytes of one frame: parses again for every table and action."""

    def __init__(self, pipeline: Pipeline, frame: bytes, in_port: int) -> None:
        self.tables = {table.table_id: sorted(table.entries(), key=lambda entry: -entry.priority) for table in pipeline}
        self.packet = Rewriter(frame, in_port)
        self.in_port = in_port
        self.tunnel_id = 0
        self.metadata = 0
        self.emissions: list[Emission] = []
        self.entries: list[FlowEntry | None] = []
        self.origin = Controller(PacketInReason.ACTION, 0, NO_COOKIE, 0)

    def key(self) -> int:
        return METADATA.put(parse(self.packet.frame, self.in_port, self.tunnel_id).key, self.metadata)

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
            apply = by_type.get(ApplyActions)
            if isinstance(apply, ApplyActions) and not self.do_all(apply.actions):
                return
            if ClearActions in by_type:
                written.clear()
            write = by_type.get(WriteActions)
            if isinstance(write, WriteActions):
                for action in write.actions:
                    place = next((at for at, (old, _) in enumerate(written) if self.same_slot(old, action)), None)
                    if place is None:
                        written.append((action, self.origin))
                    else:
                        written[place] = (action, self.origin)
            metadata = by_type.get(WriteMetadata)
            if isinstance(metadata, WriteMetadata):
                self.metadata = self.metadata & ~metadata.metadata_mask | metadata.metadata
            goto = by_type.get(GotoTable)
            table_id = goto.table_id if isinstance(goto, GotoTable) else None
        sets = (SetField, SetNwTtl)
        for kinds in ((PopVlan,), (PushVlan,), (DecNwTtl,), sets, (Output,)):
            for action, self.origin in [item for item in written if isinstance(item[0], kinds)]:
                if not self.do(action):
                    return

    @staticmethod
    def same_slot(one: Action, other: Action) -> bool:
        if isinstance(one, SetField) and isinstance(other, SetField):
            return one.field == other.field
        return type(one) is type(other)

    def do_all(self, actions: Sequence[Action]) -> bool:
        return all(self.do(action) for action in actions)

    def do(self, action: Action) -> bool:
        match action:
            case Output(port, max_len):
                self.output(port, max_len)
            case SetField(field, value):
                if field is TUNNEL_ID:
                    self.tunnel_id = value
                else:
                    self.packet.set_field(field, value)
            case SetNwTtl(ttl):
                self.packet.set_field(IP_TTL, ttl)
            case PushVlan(ethertype):
                tci = VLAN_TCI.get(self.key())
                self.packet.push_tag(ethertype, tci & ~VLAN_PRESENT if tci & VLAN_PRESENT else 0)
            case PopVlan():
                self.packet.pop_tag()
            case DecNwTtl():
                if not self.packet.dec_ttl():
                    self.emit(Controller(PacketInReason.INVALID_TTL, 0, 0, 0))
                    return False
            case _:
                raise AssertionError(action)
        return True

    def output(self, port: int, max_len: int) -> None:
        if port < 100:
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
        self.emissions.append(Emission(action, self.packet.frame))


def comparable(emissions: Sequence[Emission]) -> list[tuple[object, bytes]]:
    """A used-up TTL is told by its reason alone: who says so differs (the fast path does not know the entry)."""
    return [
        (item.action.reason, item.frame)
        if isinstance(item.action, Controller) and item.action.reason is PacketInReason.INVALID_TTL
        else (item.action, item.frame)
        for item in emissions
    ]


def run_on_frame(
    pipeline: Pipeline, first: Translation, frame: bytes, in_port: int
) -> tuple[list[Emission], list[FlowEntry | None]]:
    """Execute a translation as the switch does, parsing again where it says so."""
    emissions: list[Emission] = []
    entries: list[FlowEntry | None] = []
    translation = first
    for _ in range(200):
        entries += [lookup.entry for lookup in translation.lookups]
        again = translation.again
        actions: tuple[DatapathAction, ...] = translation.actions if again is None else (*translation.actions, Flood())
        done = execute(frame, actions, in_port)
        emissions += done
        if again is None:
            return emissions, entries
        last = done[-1].action
        if isinstance(last, Controller) and last.reason is PacketInReason.INVALID_TTL:
            return emissions, entries
        frame = emissions.pop().frame
        assert translation.slow_path_only
        translation = resume(pipeline, again, parse(frame, in_port).key, normal_port)
    raise AssertionError("a translation that does not end")


@given(cases.RANDOMS)
@MANY
def test_frames_leave_as_an_interpreter_would_send_them(rnd: Random) -> None:
    pipeline, frame, in_port = cases.pipeline(rnd), cases.frame(rnd), rnd.choice(cases.IN_PORTS)
    expected = Interpreter(pipeline, frame, in_port)
    expected.run()
    emissions, entries = run_on_frame(pipeline, translate(pipeline, parse(frame, in_port).key, normal_port), frame, in_port)
    event(f"emissions {min(len(emissions), 3)}")
    assert comparable(emissions) == comparable(expected.emissions)
    if not any(isinstance(item.action, Controller) and item.action.reason is PacketInReason.INVALID_TTL for item in emissions):
        # A packet whose TTL is used up stops; its megaflow counts it in later tables too.
        assert entries == expected.entries


@given(cases.RANDOMS)
@MANY
def test_packet_outs_leave_as_an_interpreter_would_send_them(rnd: Random) -> None:
    pipeline, frame, actions = cases.pipeline(rnd), cases.frame(rnd), cases.actions(rnd, 7)
    to_table = rnd.random() < 0.5
    expected = Interpreter(pipeline, frame, 1)
    if expected.do_all(actions) and to_table:
        expected.run()
    if to_table:
        actions = (*actions, Output(PortNo.TABLE))
    emissions, _ = run_on_frame(pipeline, translate_actions(pipeline, parse(frame, 1).key, actions, normal_port), frame, 1)
    assert comparable(emissions) == comparable(expected.emissions)
