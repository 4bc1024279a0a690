"""Plug-ins as the switch sees them: actions and matches of experimenters, in both tiers, counted and refused where they should be.

The plug-ins here are Python; what eBPF does with real ones is in tests/bpf/test_bpf_plugins.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import Action, ApplyActions, ExperimenterAction, GotoTable, Group, Output, SetField, WriteActions
from appliance.model.fields import BY_NAME, PLUGIN_BITS
from appliance.model.match import Match, MatchField
from appliance.model.plugin import EXPERIMENTER_ID, Argument, Plugin, PluginAction, PluginMatch, PluginState
from appliance.model.ports import PortNo
from appliance.openflow.codec import decode, encode
from appliance.openflow.errors import BadAction, BadMatch, ErrorType, ProtocolError
from appliance.openflow.messages import (
    Bucket,
    FlowMod,
    FlowStatsReply,
    FlowStatsRequest,
    GroupMod,
    GroupModCommand,
    GroupStatsReply,
    GroupStatsRequest,
    GroupType,
    MultipartReply,
    MultipartRequest,
    PacketOut,
)


def check(arguments: Mapping[str, int]) -> str:
    return "a limit of 0 lets nothing through" if not arguments["limit"] else ""


class Plugins:
    """1: lets ``limit`` packets through and writes ``mark`` in their last byte; 2 and 3: matches on the last bytes of a frame;
    4: sets the destination address, and says so."""

    def __init__(self) -> None:
        self.passed = 0

    @property
    def loaded(self) -> Mapping[int, Plugin]:
        limit = PluginAction((Argument("limit", 2), Argument("mark", 1)), check)
        return {
            1: Plugin(1, action=limit),
            2: Plugin(2, match=PluginMatch(bits=8, at=0)),
            3: Plugin(3, match=PluginMatch(bits=1, at=31)),
            4: Plugin(4, action=PluginAction(writes=("eth_dst",))),
        }

    def run(self, plugin_id: int, arguments: bytes, frame: bytes, in_port: int) -> bytes | None:
        if plugin_id == 4:
            return mac(0x44) + frame[6:]
        if self.passed >= int.from_bytes(arguments[:2], "big"):
            return None
        self.passed += 1
        return frame[:-1] + arguments[2:3]

    def bits(self, frame: bytes, in_port: int) -> int:
        return frame[-1] | (frame[-2] == 1) << 31

    def states(self) -> list[PluginState]:
        return []


def frame(last: int = 0, before: int = 0) -> bytes:
    return frames.ethernet(0x1234, bytes(44) + bytes((before, last)), dst=mac(0xD0), src=mac(1))


def call(plugin_id: int, *arguments: int) -> ExperimenterAction:
    return ExperimenterAction(EXPERIMENTER_ID, bytes((0, plugin_id, 0, 0, *arguments)).ljust(16, b"\0"))


def bits(value: int, mask: int | None = None, **fields: int) -> Match:
    others = [MatchField(BY_NAME[name], number) for name, number in fields.items()]
    return Match.of([*others, MatchField(PLUGIN_BITS, value, mask)])


def add(shell: Shell, *actions: Action, match: Match | None = None, table: int = 0, goto: int | None = None) -> None:
    match = match or Match()
    instructions = (ApplyActions(actions), *((GotoTable(goto),) if goto else ()))
    mod = FlowMod(table_id=table, match=match, priority=bin(match.mask).count("1"), instructions=instructions)
    assert shell.receive(mod) == []


@pytest.fixture(params=[0, 100], ids=["slow path", "both tiers"])
def shell(request: pytest.FixtureRequest) -> Shell:
    return Shell(capacity=request.param, plugins=Plugins())


# ── actions ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_action_changes_packets_and_what_it_drops_is_counted_by_nothing_behind_it(shell: Shell) -> None:
    shell.receive(GroupMod(GroupModCommand.ADD, GroupType.ALL, 5, (Bucket(actions=(Output(3),)),)))
    add(shell, Output(2), call(1, 0, 4, 0xAB), goto=1)
    add(shell, Group(5), table=1)
    sent = [shell.inject(1, frame(number)) for number in range(7)]
    assert sent[:4] == [[(2, frame(number)), (3, frame(0xAB))] for number in range(4)]
    assert sent[4:] == [[(2, frame(number))] for number in range(4, 7)]
    flows, groups = (shell.ask(MultipartRequest(body), MultipartReply).body for body in (FlowStatsRequest(), GroupStatsRequest()))
    assert isinstance(flows, FlowStatsReply)
    assert isinstance(groups, GroupStatsReply)
    assert [flow.packet_count for flow in flows.entries] == [7, 4]
    assert [group.packet_count for group in groups.entries] == [4]


def test_in_an_action_set_and_in_a_bucket(shell: Shell) -> None:
    """In the set after set-fields, one of each plug-in; in a bucket it concerns the copy alone."""
    shell.receive(GroupMod(GroupModCommand.ADD, GroupType.ALL, 5, (Bucket(actions=(call(1, 0, 2, 7), Output(3))),)))
    write = WriteActions((Output(2), call(1, 0, 9, 1), SetField(BY_NAME["eth_dst"], 9), call(1, 0, 9, 2), call(4, 0)))
    assert shell.receive(FlowMod(instructions=(ApplyActions((Group(5),)), write))) == []
    for number in range(4):
        sent = shell.inject(1, frame(number))
        assert sent[-1] == (2, mac(0x44) + frame(2)[6:])
        assert sent[:-1] == ([(3, frame(7))] if number < 1 else []), "the set's takes one, too"


def test_what_an_action_writes_later_tables_see(shell: Shell) -> None:
    add(shell, call(4, 0), goto=1)
    add(shell, Output(2), table=1, match=Match.of([MatchField(BY_NAME["eth_dst"], 0x020000000044)]))
    for _ in range(3):
        assert shell.inject(1, frame()) == [(2, mac(0x44) + frame()[6:])]


def test_flow_statistics_tell_actions_as_they_were_sent(shell: Shell) -> None:
    short = ExperimenterAction(EXPERIMENTER_ID, bytes((0, 1, 0, 0, 0, 1, 2, 0)))
    add(shell, short, Output(2), match=bits(5, 0xFF))
    reply = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(reply, FlowStatsReply)
    (entry,) = reply.entries
    assert entry.instructions == (ApplyActions((short, Output(2))),)
    assert entry.match.fields == (MatchField(PLUGIN_BITS, 5, 0xFF),)
    assert shell.inject(1, frame(5)) == [(2, frame(2))]


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (ExperimenterAction(EXPERIMENTER_ID, bytes((0, 9, 0, 0, 0, 1, 0, 0))), BadAction.BAD_EXP_TYPE),
        (ExperimenterAction(EXPERIMENTER_ID, bytes((0, 2, 0, 0, 0, 1, 0, 0))), BadAction.BAD_EXP_TYPE),  # it has only a match
        (ExperimenterAction(EXPERIMENTER_ID, bytes((0, 1, 0, 0, 0, 0, 0, 0))), BadAction.BAD_ARGUMENT),  # its own check
        (ExperimenterAction(EXPERIMENTER_ID, bytes((0, 1, 0, 0, 0, 1, 0, 1))), BadAction.BAD_ARGUMENT),  # one byte too many
        (ExperimenterAction(EXPERIMENTER_ID, bytes((0, 1, 0, 1, 0, 1, 0, 0))), BadAction.BAD_ARGUMENT),
        (ExperimenterAction(EXPERIMENTER_ID, b""), BadAction.BAD_ARGUMENT),
        (ExperimenterAction(EXPERIMENTER_ID, bytes((0, 1, 0, 0, 0, 1)).ljust(24, b"\0")), BadAction.BAD_ARGUMENT),
        (ExperimenterAction(EXPERIMENTER_ID + 1, bytes((0, 1, 0, 0, 0, 1, 0, 0))), BadAction.BAD_EXPERIMENTER),
    ],
)
def test_bad_actions(action: ExperimenterAction, code: BadAction) -> None:
    shell = Shell(plugins=Plugins())
    message = FlowMod(instructions=(ApplyActions((action,)),), xid=3)
    if action.experimenter == EXPERIMENTER_ID:
        assert shell.refused(message) == (ErrorType.BAD_ACTION, code)
        group = GroupMod(GroupModCommand.ADD, GroupType.ALL, 1, (Bucket(actions=(action,)),))
        assert shell.refused(group) == (ErrorType.BAD_ACTION, code)
    else:
        with pytest.raises(ProtocolError) as raised:
            decode(encode(message))
        assert (raised.value.type, raised.value.code) == (ErrorType.BAD_ACTION, code)


# ── matches ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_packets_are_matched_by_what_plugins_say(shell: Shell) -> None:
    assert shell.receive(FlowMod(priority=99, match=bits(0x80000000, 0x80000000))) == []
    add(shell, Output(2), goto=1, match=bits(7, 0xFF))
    add(shell, Output(3), match=bits(7, 0xFF), table=1)
    add(shell, Output(1), match=bits(8, 0xFF, in_port=2))
    for _ in range(2):
        assert shell.inject(1, frame(7)) == [(2, frame(7)), (3, frame(7))]
        assert shell.inject(1, frame(8)) == []
        assert shell.inject(2, frame(8)) == [(1, frame(8))]
        assert shell.inject(2, frame(8, 1)) == []


def test_the_bits_stay_those_of_the_packet_as_it_came(shell: Shell) -> None:
    """Also where the packet has to be parsed again on its way."""
    add(shell, call(4, 0), goto=1)
    add(shell, Output(3), table=1, match=bits(7, 0xFF, eth_dst=0x020000000044))
    for _ in range(2):
        assert len(shell.inject(1, frame(7))) == 1
        assert len(shell.inject(1, frame(6))) == 0


def test_packet_outs_have_them_too(shell: Shell) -> None:
    add(shell, Output(3), match=bits(7, 0xFF))
    for last, expected in ((7, [(3, frame(7))]), (8, [])):
        before = len(shell.datapath.sent)
        shell.receive(PacketOut(in_port=1, actions=(Output(PortNo.TABLE),), data=frame(last)))
        assert shell.datapath.sent[before:] == expected


def test_bits_that_nobody_tells_cannot_be_matched() -> None:
    shell = Shell(plugins=Plugins())
    for match in (bits(0), bits(0, 0x180), bits(0, 0x40000000)):
        assert shell.refused(FlowMod(match=match)) == (ErrorType.BAD_MATCH, BadMatch.BAD_FIELD)
    assert shell.receive(FlowMod(match=bits(0, 0x800000FF))) == []
    assert Shell().refused(FlowMod(match=bits(0, 1))) == (ErrorType.BAD_MATCH, BadMatch.BAD_FIELD)


OXM = bytes.fromhex("ffff010c 00026f66 00000005 000000ff")


def test_the_oxm() -> None:
    mod = FlowMod(match=bits(5, 0xFF))
    raw = encode(mod)
    assert OXM in raw
    assert decode(raw).match.fields == mod.match.fields
    exact = encode(FlowMod(match=bits(5)))
    assert bytes.fromhex("ffff0008 00026f66 00000005") in exact
    assert decode(exact).match == bits(5)
    for other in (bits(6), bits(0xFF, 0xFF), bits(9, 0xF9), bits(6, in_port=3)):
        # Once more, and like one before: by templates.
        assert [decode(encode(FlowMod(match=other))).match for _ in range(2)] == [other, other]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("ffff010c 00026f67 00000005 000000ff", BadMatch.BAD_FIELD),  # another experimenter
        ("ffff030c 00026f66 00000005 000000ff", BadMatch.BAD_FIELD),  # another field
        ("ffff010b 00026f66 00000005 000000ff", BadMatch.BAD_LEN),
        ("ffff000c 00026f66 00000005 000000ff", BadMatch.BAD_LEN),
        ("ffff010c 00026f66 00000105 000000ff", BadMatch.BAD_WILDCARDS),
    ],
)
def test_wrong_oxms(wrong: str, code: BadMatch) -> None:
    raw = encode(FlowMod(match=bits(5, 0xFF))).replace(OXM, bytes.fromhex(wrong))
    with pytest.raises(ProtocolError) as raised:
        decode(raw)
    assert (raised.value.type, raised.value.code) == (ErrorType.BAD_MATCH, code)
