"""The whole switch against plain models: flow-mods against a list, packets and counters against translating each packet alone."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import event, given
from support import pipeline_cases as cases
from support.flow_mod_model import FlowModModel
from switch_shell import Shell

from appliance.model.actions import (
    Action,
    ApplyActions,
    GotoTable,
    Instruction,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, VLAN_PRESENT
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import Controller, Flood, Forward
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPTT_ALL
from appliance.openflow.messages import (
    BarrierRequest,
    Error,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowRemoved,
    FlowStatsReply,
    FlowStatsRequest,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.packet.execute import execute
from appliance.packet.parse import parse
from appliance.pipeline.flow_table import FlowEntry
from appliance.switch import switch as switch_module

ADD, MODIFY, MODIFY_STRICT, DELETE, DELETE_STRICT = FlowModCommand
TABLES = 3


# ── flow-mods against a list ───────────────────────────────────────────────────────────────────────────────────────────
def small_match(rnd: Random) -> Match:
    names = [name for name in ("in_port", "eth_dst", "vlan_vid") if rnd.random() < 0.5]
    return Match.of(MatchField(BY_NAME[name], rnd.choice(cases.POOLS[name][:2])) for name in names)


def random_mod(rnd: Random) -> FlowMod:
    command = rnd.choice((ADD, ADD, ADD, *FlowModCommand))
    deletes = command in (DELETE, DELETE_STRICT)
    return FlowMod(
        cookie=rnd.randrange(4),
        cookie_mask=rnd.choice((0, 0, 1, 3)),
        table_id=rnd.choice((0, 1, OFPTT_ALL)) if deletes else rnd.randrange(2),
        command=command,
        priority=rnd.randrange(2),
        out_port=rnd.choice((PortNo.ANY, 1)) if deletes else PortNo.ANY,
        flags=rnd.choice((FlowModFlags.NONE, FlowModFlags.SEND_FLOW_REM, FlowModFlags.CHECK_OVERLAP)),
        match=small_match(rnd),
        instructions=(ApplyActions(tuple(Output(port) for port in (1, 2, 3) if rnd.random() < 0.5)),),
    )


@given(cases.RANDOMS)
def test_flow_mods_do_what_the_specification_says(rnd: Random) -> None:
    shell, model = Shell(), FlowModModel()
    for _ in range(25):
        mod = random_mod(rnd)
        shell.now += 1
        answers = [message for message in shell.receive(mod) if not isinstance(message, FlowRemoved)]
        accepted = model.apply(mod, shell.now)
        event(f"{mod.command.name} {'accepted' if accepted else 'refused'}")
        assert bool(answers) is not accepted
    stats = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(stats, FlowStatsReply)
    found = {
        (flow.table_id, flow.priority, flow.match, flow.cookie, flow.flags, flow.instructions, flow.duration_sec)
        for flow in stats.entries
    }
    assert len(found) == len(stats.entries) == len(model.rows)
    assert found == {
        (mod.table_id, mod.priority, mod.match, mod.cookie, mod.flags, row.instructions, int(shell.now - row.at))
        for row in model.rows
        for mod in (row.mod,)
    }
    told = [(message.table_id, message.priority, message.match, message.cookie) for message in shell.told(FlowRemoved)]
    # One delete may take several entries, in an order of its own.
    assert Counter(told) == Counter((mod.table_id, mod.priority, mod.match, mod.cookie) for mod in model.removed)


# ── packets and counters against translating each packet by itself ─────────────────────────────────────────────────────
PORTS = (1, 2, 3, 4, PortNo.LOCAL, PortNo.IN_PORT, PortNo.FLOOD, PortNo.ALL, PortNo.CONTROLLER, PortNo.NORMAL)


NAMES = ("in_port", "metadata", "eth_dst", "eth_src", "eth_type", "vlan_vid")


def forwarding_match(rnd: Random) -> tuple[int, Match]:
    """With a priority of its own for each set of fields: entries of one priority do not overlap, and the winner is defined."""
    names = [name for name in NAMES if rnd.random() < 0.25]
    match = Match.of(MatchField(BY_NAME[name], rnd.choice(cases.POOLS[name])) for name in names)
    return sum(1 << NAMES.index(name) for name in names), match


def forwarding_actions(rnd: Random) -> tuple[Action, ...]:
    tag = SetField(BY_NAME["vlan_vid"], rnd.choice((5, 100)) | VLAN_PRESENT)
    steps: tuple[tuple[Action, ...], ...] = (
        (PushVlan(0x8100), tag),
        (PopVlan(),),
        (SetField(BY_NAME["eth_dst"], rnd.choice(cases.POOLS["eth_dst"])),),
        (Output(rnd.choice(PORTS)),),
        (Output(rnd.choice(PORTS)),),
    )
    return tuple(action for step in steps if rnd.random() < 0.4 for action in step)


def forwarding_mod(rnd: Random) -> FlowMod:
    table_id = rnd.randrange(TABLES)
    instructions: list[Instruction] = [ApplyActions(forwarding_actions(rnd))]
    if rnd.random() < 0.3:
        instructions.append(WriteActions(forwarding_actions(rnd)))
    if rnd.random() < 0.3:
        instructions.append(WriteMetadata(rnd.randrange(4), 3))
    if table_id + 1 < TABLES and rnd.random() < 0.7:
        instructions.append(GotoTable(rnd.randrange(table_id + 1, TABLES)))
    command = rnd.choice((ADD, ADD, ADD, ADD, MODIFY, DELETE, DELETE_STRICT))
    priority, match = forwarding_match(rnd)
    return FlowMod(
        table_id=table_id,
        command=command,
        priority=priority,
        flags=FlowModFlags.SEND_FLOW_REM if rnd.random() < 0.5 else FlowModFlags.NONE,
        match=match,
        instructions=tuple(instructions),
    )


class Expected:
    """What one packet after another should do and count, by translating each with the tables as they are."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.packets: Counter[FlowEntry] = Counter()
        self.bytes: Counter[FlowEntry] = Counter()
        self.lookups: Counter[int] = Counter()
        self.matched: Counter[int] = Counter()
        self.packet_ins = 0

    def packet(self, raw: bytes, in_port: int) -> list[tuple[int, bytes]]:
        """Where it should leave, and how."""
        fast_path = self.shell.switch._fast_path
        size = len(raw)
        translation = fast_path.translate(parse(raw, in_port).key, self.shell.now)
        sent: list[tuple[int, bytes]] = []
        while True:
            for lookup in translation.lookups:
                self.lookups[lookup.table_id] += 1
                if lookup.entry is not None:
                    self.matched[lookup.table_id] += 1
                    self.packets[lookup.entry] += 1
                    self.bytes[lookup.entry] += size
            rest = Forward(0)
            emissions = execute(raw, (*translation.actions, rest), in_port)
            raw = emissions.pop().frame
            for emission in emissions:
                match emission.action:
                    case Forward(port):
                        sent += [(port, emission.frame)] if port <= 3 else []
                    case Flood():
                        sent += [(port, emission.frame) for port in (1, 2, 3) if port != in_port]
                    case Controller():
                        self.packet_ins += 1
            if translation.again is None:
                return sent
            translation = fast_path.resume(translation.again, parse(raw, in_port).key, self.shell.now)

    def replaced(self, old: FlowEntry, new: FlowEntry) -> None:
        """The new one has taken over the old one's counters."""
        self.packets[new] += self.packets.pop(old, 0)
        self.bytes[new] += self.bytes.pop(old, 0)


@pytest.mark.parametrize("few", [1024, 0], ids=["at once", "by the barrier"])
@given(rnd=cases.RANDOMS)
def test_packets_go_and_count_as_the_tables_say(few: int, rnd: Random) -> None:
    """Whatever the fast path knows from before, and whichever tier handles a packet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(switch_module, "_FEW_MEGAFLOWS", few)
        shell = Shell(3, max_megaflows=rnd.choice((4, 1000)), capacity=rnd.choice((3, 1000)))
        expected = Expected(shell)
        table_miss = FlowMod(priority=0, flags=FlowModFlags.SEND_FLOW_REM, instructions=(ApplyActions(forwarding_actions(rnd)),))
        assert not shell.receive(table_miss)
        traffic = [(cases.frame(rnd), rnd.choice(cases.IN_PORTS)) for _ in range(4)]
        for _ in range(12):
            for _ in range(rnd.randrange(3)):
                change(shell, forwarding_mod(rnd), expected)
            shell.receive(BarrierRequest())
            for _ in range(rnd.randrange(6)):
                raw, in_port = rnd.choice(traffic)
                wanted = expected.packet(raw, in_port)
                assert shell.inject(in_port, raw) == wanted
        counters = shell.datapath.port_counters().values()
        event(f"forwarded by the fast path: {any(port.forwarded_tc for port in counters)}")
        event(f"dropped by the fast path: {any(port.dropped for port in counters)}")
        assert len(shell.told(PacketIn)) == expected.packet_ins
        assert_counted(shell, expected)


def change(shell: Shell, mod: FlowMod, expected: Expected) -> None:
    """A flow-mod, and what it means for the counters that are expected."""
    before = {place(table.table_id, entry): entry for table in shell.switch.tables for entry in table.entries()}
    messages = shell.receive(mod)
    event(f"refused: {any(isinstance(message, Error) for message in messages)}")
    for table in shell.switch.tables:
        for entry in table.entries():
            old = before.get(place(table.table_id, entry))
            if old is not None and old is not entry:
                expected.replaced(old, entry)


def place(table_id: int, entry: FlowEntry) -> tuple[int, int, Match]:
    return table_id, entry.priority, entry.match


def assert_counted(shell: Shell, expected: Expected) -> None:
    shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply)
    for table in shell.switch.tables:
        for entry in table.entries():
            assert (entry.packet_count, entry.byte_count) == (expected.packets.pop(entry, 0), expected.bytes[entry])
    # What is left was counted for entries that have gone; those who asked were told all of it.
    gone = Counter(count for entry, count in expected.packets.items() if entry.flags & FlowModFlags.SEND_FLOW_REM and count)
    assert gone == Counter(message.packet_count for message in shell.told(FlowRemoved) if message.packet_count)
    stats = shell.ask(MultipartRequest(TableStatsRequest()), MultipartReply).body
    assert isinstance(stats, TableStatsReply)
    for item in stats.entries:
        assert (item.lookup_count, item.matched_count) == (expected.lookups[item.table_id], expected.matched[item.table_id])
