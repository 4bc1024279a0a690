"""Packets through the whole switch over the in-memory fast path: misses, packet-ins, packet-outs, order, learning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.big_frames import GSO_SIZE, big_frame
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import (
    OFPCML_NO_BUFFER,
    Action,
    ApplyActions,
    DecNwTtl,
    GotoTable,
    Group,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, IN_PORT, VLAN_PRESENT
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import NO_MEGAFLOW, Again, Controller, Flood, PacketInReason, Upcall, UpcallReason
from appliance.model.ports import PortNo
from appliance.openflow.errors import BadAction, BadRequest, ErrorType
from appliance.openflow.messages import (
    Bucket,
    Error,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowRemoved,
    FlowStatsReply,
    FlowStatsRequest,
    FragmentHandling,
    GroupMod,
    GroupModCommand,
    GroupStatsReply,
    GroupStatsRequest,
    GroupType,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    PacketOut,
    SetAsync,
    SetConfig,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.packet import checksum
from appliance.packet.parse import parse
from appliance.packet.segment import segment
from appliance.switch.effects import Effect, InstallMegaflow, SendFrame, SendMessage, Served, TellWhenSent
from appliance.switch.events import FramesSent, Upcalls

NO_COOKIE = 0xFFFFFFFFFFFFFFFF


def frame(src: int = 1, dst: int = 2, size: int = 60) -> bytes:
    return frames.ethernet(0x1234, bytes(size - 14), dst=mac(dst), src=mac(src))


def match(**fields: int) -> Match:
    return Match.of(MatchField(BY_NAME[name], value) for name, value in fields.items())


def add(shell: Shell, *actions: Action, **fields: int) -> None:
    """An entry for these fields; higher priorities for more fields."""
    assert shell.receive(FlowMod(priority=len(fields), match=match(**fields), instructions=(ApplyActions(actions),))) == []


def upcall(raw: bytes, in_port: int = 1, reason: UpcallReason = UpcallReason.MISS, megaflow: int = NO_MEGAFLOW) -> Upcall:
    return Upcall(in_port, reason, megaflow, parse(raw, in_port).key, raw)


def flow_bytes(shell: Shell) -> list[int]:
    """Of all entries, as the switch tells."""
    flows = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(flows, FlowStatsReply)
    return [entry.byte_count for entry in flows.entries]


def kinds(effects: list[Effect]) -> list[type[Effect]]:
    return [type(effect) for effect in effects]


# ── misses ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_empty_switch_drops_and_remembers_it() -> None:
    shell = Shell()
    assert shell.inject(1, frame()) == []
    (live,) = shell.switch.megaflows
    assert live.megaflow.actions == ()
    assert shell.inject(1, frame(5, 6)) == []
    assert shell.switch.upcalls[UpcallReason.MISS] == 1, "the fast path drops the second by itself"


def test_frames_stand_before_the_megaflows_that_they_make() -> None:
    shell = Shell()
    add(shell, Output(2), eth_src=int.from_bytes(mac(1), "big"))
    add(shell, Output(3), eth_src=int.from_bytes(mac(4), "big"))
    first, other, again = frame(1), frame(4), frame(1, 2, 100)
    before = len(shell.effects)
    effects = shell.step(Upcalls((upcall(first), upcall(other), upcall(again))))
    assert effects == [SendFrame(2, first), SendFrame(3, other), SendFrame(2, again), TellWhenSent()]
    assert kinds(shell.effects[before + len(effects) :]) == [InstallMegaflow, InstallMegaflow]
    assert len(shell.switch.megaflows) == 2
    assert sorted(live.packets for live in shell.switch.megaflows) == [1, 2]


def test_a_packet_that_was_sent_is_counted_though_nobody_says_that_it_was() -> None:
    shell = Shell()
    add(shell, Output(2))
    effects = shell.switch.step(Upcalls((upcall(frame()),)), shell.now)
    assert effects == [SendFrame(2, frame()), TellWhenSent()], "the shell stops here, as it does when something goes wrong"
    stats = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(stats, FlowStatsReply)
    assert [entry.packet_count for entry in stats.entries] == [1]
    assert len(shell.switch.megaflows) == 0, "which would be made of what may not hold any more"


def test_what_was_wanted_before_a_flow_mod_is_not_made_behind_it() -> None:
    shell = Shell()
    add(shell, Output(2))
    shell.switch.step(Upcalls((upcall(frame()),)), shell.now)
    assert shell.receive(FlowMod(command=FlowModCommand.DELETE)) == []
    assert shell.switch.step(FramesSent(), shell.now) == [], "it comes too late"
    assert len(shell.switch.megaflows) == 0


def test_a_miss_that_waited_while_its_megaflow_was_made_makes_none() -> None:
    shell = Shell()
    add(shell, Output(2))
    shell.step(Upcalls((upcall(frame()),)))
    before = len(shell.effects)
    shell.step(Upcalls((upcall(frame()),)))
    assert shell.effects[before:] == [SendFrame(2, frame()), TellWhenSent()]


def test_a_packet_that_queues_behind_its_new_megaflow_is_served() -> None:
    shell = Shell()
    add(shell, Output(2))
    shell.step(Upcalls((upcall(frame()),)))
    (megaflow_id,) = shell.switch.megaflow_ids
    effects = shell.step(Upcalls((upcall(frame(), 1, UpcallReason.CATCHING_UP, megaflow_id),)))
    assert effects == [SendFrame(2, frame()), Served(megaflow_id)]
    gone = shell.step(Upcalls((upcall(frame(), 1, UpcallReason.CATCHING_UP, 99),)))
    assert gone[:2] == [SendFrame(2, frame()), Served(99)]


def test_a_megaflow_that_the_fast_path_has_no_room_for() -> None:
    shell = Shell(capacity=1)
    add(shell, Output(2), in_port=1)
    add(shell, Output(3), in_port=2)
    assert shell.inject(1, frame()) == [(2, frame())]
    for _ in range(2):
        assert shell.inject(2, frame()) == [(3, frame())], "its packets come up one by one"
    assert len(shell.switch.megaflow_ids) == 1


def test_the_megaflows_used_longest_ago_make_room() -> None:
    shell = Shell(max_megaflows=32)
    add(shell, Output(2), in_port=1, eth_src=0)
    for number in range(40):
        shell.now += 0.01
        shell.inject(1, frame(number))
    add(shell, Output(3), in_port=2, eth_src=0)
    assert len(shell.switch.megaflow_ids) <= 32
    assert len(shell.datapath.megaflows) == len(shell.switch.megaflow_ids)
    newest = parse(frame(39), 1).key
    assert any(newest & megaflow.mask == megaflow.key for megaflow in shell.datapath.megaflows)


# ── packet-in ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_table_miss() -> None:
    shell = Shell()
    shell.open(2)
    entry = FlowMod(cookie=77, priority=0, table_id=0, instructions=(ApplyActions((Output(PortNo.CONTROLLER, OFPCML_NO_BUFFER),)),))
    shell.receive(entry)
    raw = frame(size=1500)
    shell.inject(3, raw)
    wanted = PacketIn(0xFFFFFFFF, 1500, PacketInReason.NO_MATCH, 0, 77, match(in_port=3), raw)
    assert shell.told(PacketIn) == shell.told(PacketIn, 2) == [wanted]
    assert shell.told(PacketIn)[0].match.fields == (MatchField(BY_NAME["in_port"], 3),)
    shell.inject(3, raw)
    assert shell.told(PacketIn) == [wanted, wanted]
    assert shell.switch.upcalls[UpcallReason.MISS] == 1
    assert shell.switch.upcalls[UpcallReason.CATCHING_UP] == 0, "the second came up because of its megaflow's action"
    assert shell.switch.upcalls[UpcallReason.ACTION] == 1


def test_packet_in_from_a_later_table_with_metadata_and_cut() -> None:
    shell = Shell()
    shell.receive(FlowMod(instructions=(WriteMetadata(0xABC, 0xFFF), GotoTable(5))))
    shell.receive(FlowMod(cookie=9, table_id=5, instructions=(ApplyActions((Output(PortNo.CONTROLLER, 20),)),)))
    raw = frame()
    shell.inject(1, raw)
    wanted = PacketIn(0, 60, PacketInReason.ACTION, 5, 9, match(in_port=1, metadata=0xABC), raw[:20])
    assert shell.told(PacketIn) == [wanted]


def test_the_packet_in_shows_the_packet_as_it_is_then() -> None:
    shell = Shell()
    add(shell, PushVlan(0x8100), SetField(BY_NAME["vlan_vid"], VLAN_PRESENT | 5), Output(PortNo.CONTROLLER), PopVlan(), Output(2))
    raw = frame()
    assert shell.inject(1, raw) == [(2, raw)]
    (packet_in,) = shell.told(PacketIn)
    assert packet_in.data == raw[:12] + bytes.fromhex("81000005") + raw[12:]


def ip_frame(ttl: int) -> bytes:
    payload = frames.udp(1, 2)
    raw = frames.ethernet(0x0800, frames.ipv4(17, payload, ttl=ttl))
    return frames.Sample(raw, 4, 14, 34, 17).finished().frame


def test_an_invalid_ttl_is_told_to_those_who_asked() -> None:
    shell = Shell()
    shell.open(2)
    shell.receive(SetAsync((7, 0), (7, 7), (15, 0)), 2)
    shell.receive(SetConfig(FragmentHandling.NORMAL, 20), 2)
    add(shell, DecNwTtl(), Output(2), eth_type=0x0800)
    assert len(shell.inject(1, ip_frame(64))) == 1
    raw = ip_frame(1)
    for _ in range(2):
        assert shell.inject(1, raw) == []
    assert shell.told(PacketIn) == []
    first, second = shell.told(PacketIn, 2)
    assert replace(first, buffer_id=second.buffer_id) == second
    assert first.buffer_id != second.buffer_id
    assert (first.reason, first.data, first.total_len) == (PacketInReason.INVALID_TTL, raw[:20], len(raw))


@pytest.mark.parametrize("capacity", [0, 100])
def test_what_a_used_up_ttl_stops_is_counted_by_nothing_behind_it(capacity: int) -> None:
    """Be it the packet or a copy of it; and the packet-in tells which entry it was."""
    shell = Shell(capacity=capacity)
    shell.receive(SetAsync((7, 0), (7, 7), (15, 0)))
    ip = match(eth_type=0x0800)
    for number, actions in ((2, (Output(3),)), (1, (DecNwTtl(), Group(2)))):
        assert shell.receive(GroupMod(GroupModCommand.ADD, GroupType.ALL, number, (Bucket(actions=actions),))) == []
    shell.receive(FlowMod(match=ip, cookie=7, instructions=(ApplyActions((DecNwTtl(), Group(1))), GotoTable(1))))
    shell.receive(FlowMod(table_id=1, instructions=(ApplyActions((Output(2),)),)))

    def counted() -> tuple[list[int], list[int], list[int]]:
        flows, tables, groups = (
            shell.ask(MultipartRequest(body), MultipartReply).body
            for body in (FlowStatsRequest(), TableStatsRequest(), GroupStatsRequest())
        )
        assert isinstance(flows, FlowStatsReply)
        assert isinstance(tables, TableStatsReply)
        assert isinstance(groups, GroupStatsReply)
        return (
            [flow.packet_count for flow in flows.entries],
            [table.lookup_count for table in tables.entries[:2]],
            [group.packet_count for group in groups.entries],
        )

    for ttl, sent, told in ((9, 2, 0), (1, 0, 1), (9, 2, 1), (2, 1, 2), (0, 0, 3), (3, 2, 3)):
        assert len(shell.inject(1, ip_frame(ttl))) == sent
        assert len(shell.told(PacketIn)) == told
    assert counted() == ([6, 4], [6, 4], [4, 3])
    assert {(message.table_id, message.cookie, message.reason) for message in shell.told(PacketIn)} == {
        (0, 7, PacketInReason.INVALID_TTL)
    }


def test_a_controller_that_is_not_there_is_told_nothing() -> None:
    shell = Shell(connected=False)
    shell.open(1)
    add(shell, Output(PortNo.CONTROLLER), Output(2))
    shell.close(1)
    assert shell.inject(1, frame()) == [(2, frame())]
    assert shell.told(PacketIn) == []


# ── partial checksums and segmentation offload ─────────────────────────────────────────────────────────────────────────
def partial_tcp(payload: bytes) -> tuple[bytes, bytes]:
    """A frame as a local stack leaves it, and the same with its checksum finished."""
    raw = frames.ethernet(0x0800, frames.ipv4(6, frames.tcp(payload=payload)))
    finished = frames.Sample(raw, 4, 14, 34, 6).finished()
    partial = frames.plain_sum(finished.pseudo_header()).to_bytes(2, "big")
    return finished.frame[:50] + partial + finished.frame[52:], finished.frame


def test_a_partial_checksum_is_finished() -> None:
    shell = Shell()
    add(shell, Output(2), Output(PortNo.CONTROLLER))
    partial, finished = partial_tcp(b"payload")
    assert partial != finished
    assert shell.inject(1, partial) == [(2, finished)]
    assert shell.told(PacketIn)[0].data == finished


def test_a_frame_to_be_segmented_keeps_its_partial_checksum() -> None:
    shell = Shell()
    add(shell, SetField(BY_NAME["ipv4_dst"], 0x0A000001), Output(2), eth_type=0x0800)
    partial, finished = partial_tcp(bytes(4000))
    call = Upcall(1, UpcallReason.MISS, NO_MEGAFLOW, parse(partial, 1).key, partial, 1000)
    sent = [effect for effect in shell.step(Upcalls((call,))) if isinstance(effect, SendFrame)]
    add(shell, SetField(BY_NAME["ipv4_dst"], 0x0A000001), Output(3), eth_type=0x0800)
    ((_, rewritten),) = shell.inject(1, finished)
    (effect,) = sent
    assert (effect.port, effect.gso_size) == (2, 1000)
    assert effect.frame[:50] == rewritten[:50]
    assert effect.frame[50:52] != rewritten[50:52]


def test_a_frame_to_be_segmented_is_cut_for_a_controller() -> None:
    """Packets as they would be on a wire, their checksums finished; and so they leave by the port too."""
    shell = Shell()
    add(shell, Output(2), Output(PortNo.CONTROLLER), eth_type=0x0800)
    partial, finished = partial_tcp(bytes(4000))
    call = Upcall(1, UpcallReason.MISS, NO_MEGAFLOW, parse(partial, 1).key, partial, 1000)
    effects = shell.step(Upcalls((call,)))
    sent = [effect for effect in effects if isinstance(effect, SendFrame)]
    assert [(effect.port, effect.gso_size, effect.frame) for effect in sent] == [(2, 0, part) for part in segment(finished, 1000)]
    assert [message.data for message in shell.told(PacketIn)] == [effect.frame for effect in sent]


def test_a_frame_longer_than_its_header_can_say() -> None:
    """BIG TCP: rewritten it keeps its partial checksum; what a controller is shown are packets as they would be on a wire."""
    frame = big_frame(185_000)
    call = Upcall(1, UpcallReason.MISS, NO_MEGAFLOW, parse(frame, 1).key, frame, GSO_SIZE)
    shell = Shell()
    add(shell, SetField(BY_NAME["ipv4_dst"], 0xC0000201), Output(2), eth_type=0x0800)
    (sent,) = [effect for effect in shell.step(Upcalls((call,))) if isinstance(effect, SendFrame)]
    assert (sent.gso_size, len(sent.frame), sent.frame[30:34]) == (GSO_SIZE, len(frame), b"\xc0\0\2\1")
    assert checksum.is_partial(sent.frame, parse(sent.frame, 1))

    shell = Shell()
    add(shell, Output(2), Output(PortNo.CONTROLLER), eth_type=0x0800)
    effects = shell.step(Upcalls((call,)))
    parts = segment(frame, GSO_SIZE)
    assert [effect.frame for effect in effects if isinstance(effect, SendFrame)] == parts
    assert [(message.data, message.total_len) for message in shell.told(PacketIn)] == [(part, len(part)) for part in parts]


@pytest.mark.parametrize("size", [0, 1000])
def test_a_copy_for_the_controllers_is_what_the_slow_path_would_have_shown_them(size: int) -> None:
    """Nothing is forwarded or counted once more."""
    shell = Shell()
    add(shell, Output(2), Output(PortNo.CONTROLLER), eth_type=0x0800)
    partial, _ = partial_tcp(bytes(4000) if size else b"payload")
    key = parse(partial, 1).key
    shell.step(Upcalls((Upcall(1, UpcallReason.MISS, NO_MEGAFLOW, key, partial, size),)))
    shown = shell.told(PacketIn)
    (action,) = [each for each in shell.datapath.megaflows[0].actions if isinstance(each, Controller)]
    call = Upcall(1, UpcallReason.COPY, shell.datapath.megaflows[0].id, key, partial, size, action)
    effects = shell.step(Upcalls((call,)))
    again = shell.told(PacketIn)[len(shown) :]
    assert again == shown
    assert len(again) == (4 if size else 1)
    assert len(effects) == len(again)
    flows = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(flows, FlowStatsReply)
    assert [entry.packet_count for entry in flows.entries] == [len(again)]


# ── packet-out ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def packet_out(
    shell: Shell, *actions: Action, in_port: int = PortNo.CONTROLLER, data: bytes | None = None
) -> list[tuple[int, bytes]]:
    before = len(shell.datapath.sent)
    assert shell.receive(PacketOut(in_port=in_port, actions=actions, data=frame() if data is None else data)) == []
    return shell.datapath.sent[before:]


def test_packet_out_to_ports() -> None:
    raw = frame()
    assert packet_out(Shell(), Output(2)) == [(2, raw)]
    assert packet_out(Shell()) == []
    assert packet_out(Shell(), Output(PortNo.FLOOD)) == [(1, raw), (2, raw), (3, raw)]
    assert packet_out(Shell(), Output(PortNo.FLOOD), in_port=PortNo.ANY) == [(1, raw), (2, raw), (3, raw)], "as Ryu's apps do it"
    assert packet_out(Shell(), Output(PortNo.ALL), in_port=2) == [(1, raw), (3, raw)]
    assert packet_out(Shell(), Output(PortNo.IN_PORT), in_port=2) == [(2, raw)]
    assert packet_out(Shell(), Output(2), in_port=2) == [], "the port it came from must be asked for as OFPP_IN_PORT"
    assert packet_out(Shell(), Output(9)) == []


def test_packet_out_changes_the_packet_on_the_way() -> None:
    raw = frame()
    tagged = raw[:12] + bytes.fromhex("81000005") + raw[12:]
    sent = packet_out(Shell(), Output(1), PushVlan(0x8100), SetField(BY_NAME["vlan_vid"], VLAN_PRESENT | 5), Output(2))
    assert sent == [(1, raw), (2, tagged)]


def test_packet_out_to_the_tables_counts() -> None:
    shell = Shell()
    add(shell, Output(3), in_port=2)
    assert packet_out(shell, Output(PortNo.TABLE), in_port=2) == [(3, frame())]
    assert packet_out(shell, Output(PortNo.TABLE), Output(1), in_port=2) == [(3, frame()), (1, frame())]
    (table,) = shell.switch.tables
    assert (table.lookup_count, table.matched_count) == (2, 2)
    assert table.entries()[0].byte_count == 120
    assert shell.switch.megaflow_ids == ()


def test_packet_out_to_the_controllers() -> None:
    shell = Shell()
    raw = frame()
    shell.receive(PacketOut(in_port=2, actions=(Output(PortNo.CONTROLLER, 30),), data=raw))
    wanted = PacketIn(0, 60, PacketInReason.ACTION, 0, NO_COOKIE, match(in_port=2), raw[:30])
    assert shell.told(PacketIn) == [wanted]


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        (PacketOut(buffer_id=5, data=frame()), ErrorType.BAD_REQUEST, BadRequest.BUFFER_UNKNOWN),
        (PacketOut(in_port=9, data=frame()), ErrorType.BAD_REQUEST, BadRequest.BAD_PORT),
        (PacketOut(in_port=PortNo.FLOOD, data=frame()), ErrorType.BAD_REQUEST, BadRequest.BAD_PORT),
        (PacketOut(data=b"short"), ErrorType.BAD_REQUEST, BadRequest.BAD_PACKET),
        (PacketOut(actions=(Output(1), Output(0)), data=frame()), ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT),
        (PacketOut(actions=(DecNwTtl(),), data=frame()), ErrorType.BAD_ACTION, BadAction.MATCH_INCONSISTENT),
    ],
)
def test_packet_outs_that_are_refused(message: PacketOut, kind: ErrorType, code: int) -> None:
    assert Shell().refused(message) == (kind, code)


# ── parsing again ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_headers_that_show_only_after_an_action() -> None:
    """Behind three tags the parser sees nothing; with one popped, table 1 can ask for the IPv4 address."""
    shell = Shell()
    shell.receive(FlowMod(instructions=(ApplyActions((PopVlan(), Output(2))), GotoTable(1))))
    shell.receive(
        FlowMod(
            table_id=1,
            match=match(eth_type=0x0800, ipv4_dst=int.from_bytes(frames.IPV4_B, "big")),
            instructions=(ApplyActions((Output(3),)),),
        )
    )
    tag = (0x8100, 7)
    inner = frames.ipv4(17, frames.udp(1, 2))
    raw = frames.ethernet(0x0800, inner, (tag, tag, tag))
    popped = frames.ethernet(0x0800, inner, (tag, tag))
    for _ in range(4):
        assert shell.inject(1, raw) == [(2, popped), (3, popped)]
    first, second = shell.datapath.megaflows
    assert first.actions[-1] == Again(IN_PORT.get(second.key))
    counters = shell.datapath.port_counters()[1]
    # The first packet comes up as it came, the second where no megaflow goes on with it.
    assert (counters.rx_packets, counters.punted, counters.forwarded_tc, counters.dropped) == (4, 2, 2, 0)
    assert flow_bytes(shell) == [4 * len(raw)] * 2, "as they came in"
    assert [(table.lookup_count, table.matched_count) for table in shell.switch.tables] == [(4, 4), (4, 4)]


def test_an_entry_that_changes_leads_its_packets_elsewhere_once_parsed_again() -> None:
    """No megaflow is there in which the change shows but the first, which it does not change."""
    shell = Shell()
    to_1 = FlowMod(instructions=(ApplyActions((PopVlan(),)), GotoTable(1)))
    shell.receive(to_1)
    for table_id, port in ((1, 2), (2, 3)):
        shell.receive(FlowMod(table_id=table_id, match=match(eth_type=0x0800), instructions=(ApplyActions((Output(port),)),)))
    tag = (0x8100, 7)
    raw = frames.ethernet(0x0800, frames.ipv4(17, frames.udp(1, 2)), (tag, tag, tag))
    for _ in range(3):
        assert [port for port, _ in shell.inject(1, raw)] == [2]
    shell.receive(to_1._replace(command=FlowModCommand.MODIFY, instructions=(ApplyActions((PopVlan(),)), GotoTable(2))))
    for _ in range(3):
        assert [port for port, _ in shell.inject(1, raw)] == [3]
    shell.receive(FlowMod(table_id=2, command=FlowModCommand.DELETE))
    for _ in range(3):
        assert shell.inject(1, raw) == []


# ── OFPP_NORMAL ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_normal_learns() -> None:
    shell = Shell()
    add(shell, Output(PortNo.NORMAL))
    there, back = frame(1, 2), frame(2, 1)
    assert shell.inject(1, there) == [(2, there), (3, there)]
    assert shell.inject(2, back) == [(1, back)]
    assert shell.inject(1, there) == [(2, there)], "the flooding megaflow has gone"
    assert shell.inject(1, there) == [(2, there)]
    flooding = [live for live in shell.switch.megaflows if live.megaflow.actions == (Flood(),)]
    assert flooding == []


def test_an_address_that_moves() -> None:
    shell = Shell()
    add(shell, Output(PortNo.NORMAL))
    for _ in range(2):
        shell.inject(1, frame(1, 2))
        shell.inject(2, frame(2, 1))
    assert shell.inject(3, frame(2, 1)) == [(1, frame(2, 1))]
    assert shell.inject(1, frame(1, 2)) == [(3, frame(1, 2))]
    assert shell.inject(2, frame(2, 1)) == [(1, frame(2, 1))], "it moves back"
    assert shell.inject(1, frame(1, 2)) == [(2, frame(1, 2))]


# ── removal, statistics and the barrier ────────────────────────────────────────────────────────────────────────────────
def test_flow_removed_tells_all_packets() -> None:
    shell = Shell()
    shell.receive(FlowMod(flags=FlowModFlags.SEND_FLOW_REM, cookie=3, priority=9, instructions=(ApplyActions((Output(2),)),)))
    for _ in range(5):
        shell.inject(1, frame())
    shell.now += 2
    shell.receive(FlowMod(command=FlowModCommand.DELETE))
    (removed,) = shell.told(FlowRemoved)
    assert (removed.packet_count, removed.byte_count) == (5, 300)
    assert (removed.cookie, removed.priority, removed.table_id, removed.duration_sec) == (3, 9, 0, 2)
    assert shell.inject(1, frame()) == []


def test_table_statistics_count_what_the_fast_path_did() -> None:
    shell = Shell()
    add(shell, Output(2), in_port=1)
    for in_port in (1, 1, 1, 2, 2):
        shell.inject(in_port, frame())
    reply = shell.ask(MultipartRequest(TableStatsRequest()), MultipartReply).body
    assert isinstance(reply, TableStatsReply)
    assert (reply.entries[0].lookup_count, reply.entries[0].matched_count) == (5, 3)


def test_an_error_of_the_switch_goes_to_the_one_who_asked() -> None:
    shell = Shell()
    shell.open(2)
    shell.receive(PacketOut(buffer_id=5), 2)
    assert shell.told(Error) == []
    assert len(shell.told(Error, 2)) == 1
    assert isinstance(shell.effects[-1], SendMessage)


def test_what_one_packet_of_a_batch_teaches_the_next_know() -> None:
    shell = Shell()
    add(shell, Output(PortNo.NORMAL))
    there, back = frame(1, 2), frame(2, 1)
    effects = shell.step(Upcalls((upcall(there), upcall(back, 2), upcall(there))))
    assert effects[:4] == [SendFrame(2, there), SendFrame(3, there), SendFrame(1, back), SendFrame(2, there)]
    assert not any(megaflow.actions == (Flood(),) for megaflow in shell.datapath.megaflows)


# ── fragments ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def fragment(offset: int, more: bool) -> bytes:
    return frames.ethernet(0x0800, frames.ipv4(17, frames.udp(1, 2), fragment=more << 13 | offset))


def test_fragments_are_dropped_before_the_tables_where_the_configuration_says_so() -> None:
    shell = Shell()
    add(shell, Output(2))
    whole, pieces = fragment(0, more=False), [fragment(0, more=True), fragment(8, more=True), fragment(16, more=False)]
    for raw in (whole, *pieces, frame()):
        assert shell.inject(1, raw) == [(2, raw)]
    shell.receive(SetConfig(FragmentHandling.DROP, 128))
    for _ in range(2):
        for raw in (whole, frame()):
            assert shell.inject(1, raw) == [(2, raw)]
        for raw in pieces:
            assert shell.inject(1, raw) == []
    stats = shell.ask(MultipartRequest(TableStatsRequest()), MultipartReply).body
    assert isinstance(stats, TableStatsReply)
    assert stats.entries[0].lookup_count == 5 + 4, "fragments did not come to the tables"
    shell.receive(SetConfig(FragmentHandling.NORMAL, 128))
    for raw in (whole, *pieces):
        assert shell.inject(1, raw) == [(2, raw)]
