"""Packets kept for a controller that was shown their start."""

from __future__ import annotations

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import OFP_NO_BUFFER, OFPCML_NO_BUFFER, ApplyActions, GotoTable, Output, SetField
from appliance.model.fields import BY_NAME, IN_PORT
from appliance.model.match import Match, MatchField
from appliance.model.ports import PortNo
from appliance.openflow.errors import BadAction, BadRequest, ErrorType, FlowModFailed, ProtocolError
from appliance.openflow.messages import (
    Error,
    FlowMod,
    FlowModCommand,
    FlowStatsReply,
    FlowStatsRequest,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    PacketOut,
)
from appliance.switch.packet_buffers import HOLD_SECONDS, N_BUFFERS, BufferedPacket, PacketBuffers

FRAME = frames.ethernet(0x1234, bytes(range(200)), dst=mac(2), src=mac(1))
EMPTY = (ErrorType.BAD_REQUEST, BadRequest.BUFFER_EMPTY)
UNKNOWN = (ErrorType.BAD_REQUEST, BadRequest.BUFFER_UNKNOWN)
ADDRESS = BY_NAME["eth_dst"]


def shell_with(max_len: int, *actions: SetField) -> Shell:
    shell = Shell()
    output = Output(PortNo.CONTROLLER, max_len)
    shell.receive(FlowMod(priority=0, instructions=(ApplyActions((*actions, output)),)))
    return shell


def shown(shell: Shell, frame: bytes = FRAME) -> PacketIn:
    shell.inject(1, frame)
    return shell.told(PacketIn)[-1]


def error(shell: Shell, message: PacketOut | FlowMod) -> tuple[int, int]:
    return shell.refused(message)


@pytest.mark.parametrize("max_len", [0, 1, 64, len(FRAME) - 1])
def test_a_packet_that_is_cut_is_kept(max_len: int) -> None:
    shell = shell_with(max_len)
    message = shown(shell)
    assert message.buffer_id != OFP_NO_BUFFER
    assert (message.data, message.total_len) == (FRAME[:max_len], len(FRAME))
    shell.receive(PacketOut(message.buffer_id, 1, (Output(2),)))
    assert shell.datapath.sent == [(2, FRAME)]


@pytest.mark.parametrize("max_len", [len(FRAME), 0xFFE5, OFPCML_NO_BUFFER])
def test_a_packet_that_is_whole_is_not_kept(max_len: int) -> None:
    message = shown(shell_with(max_len))
    assert (message.buffer_id, message.data) == (OFP_NO_BUFFER, FRAME)


def test_a_packet_is_kept_as_it_was_when_it_went_to_the_controller() -> None:
    shell = shell_with(20, SetField(ADDRESS, 5))
    message = shown(shell)
    changed = (5).to_bytes(6, "big") + FRAME[6:]
    assert message.data == changed[:20]
    shell.receive(PacketOut(message.buffer_id, 1, (Output(3),)))
    assert shell.datapath.sent == [(3, changed)]


def test_a_buffer_is_used_once() -> None:
    shell = shell_with(20)
    message = shown(shell)
    out = PacketOut(message.buffer_id, 1, ())
    assert shell.receive(out) == [], "no action: the packet is dropped"
    assert shell.datapath.sent == []
    assert error(shell, out) == EMPTY
    assert error(shell, PacketOut(message.buffer_id + 1, 1, ())) == UNKNOWN


def test_a_packet_out_that_is_refused_leaves_the_packet() -> None:
    shell = shell_with(20)
    buffer_id = shown(shell).buffer_id
    assert error(shell, PacketOut(buffer_id, 1, (Output(0),))) == (ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT)
    assert error(shell, PacketOut(buffer_id, 77, (Output(2),))) == (ErrorType.BAD_REQUEST, BadRequest.BAD_PORT)
    shell.receive(PacketOut(buffer_id, 1, (Output(2),)))
    assert shell.datapath.sent == [(2, FRAME)]


def test_each_controller_has_its_own() -> None:
    shell = shell_with(20)
    shell.open(2)
    shell.inject(1, FRAME)
    for connection in (1, 2):
        buffer_id = shell.told(PacketIn, connection)[0].buffer_id
        assert shell.receive(PacketOut(buffer_id, 1, (Output(2),)), connection) == []
    assert shell.datapath.sent == [(2, FRAME)] * 2


@pytest.mark.parametrize("command", [FlowModCommand.ADD, FlowModCommand.MODIFY, FlowModCommand.MODIFY_STRICT])
def test_a_flow_mod_sends_its_packet_through_the_tables_as_they_are_then(command: FlowModCommand) -> None:
    shell = shell_with(20)
    in_port = Match.of([MatchField(IN_PORT, 1)])
    shell.receive(FlowMod(table_id=1, match=in_port, instructions=(ApplyActions((Output(2),)),)))
    buffer_id = shown(shell).buffer_id
    mod = FlowMod(command=command, priority=0, buffer_id=buffer_id, instructions=(GotoTable(1),))
    assert shell.receive(mod) == []
    assert shell.datapath.sent == [(2, FRAME)]
    assert error(shell, mod) == EMPTY


def test_a_flow_mod_is_refused_with_its_buffer() -> None:
    shell = shell_with(20)
    buffer_id = shown(shell).buffer_id
    entry = FlowMod(priority=5, buffer_id=buffer_id + 1)
    assert error(shell, entry) == UNKNOWN
    bad = FlowMod(table_id=254, buffer_id=buffer_id)
    assert error(shell, bad) == (ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID)
    flows = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(flows, FlowStatsReply)
    assert len(flows.entries) == 1
    assert shell.receive(FlowMod(priority=5, buffer_id=buffer_id)) == []


def test_a_delete_looks_at_no_buffer() -> None:
    shell = shell_with(20)
    assert shell.receive(FlowMod(command=FlowModCommand.DELETE, buffer_id=99)) == []


def test_without_a_free_buffer_the_whole_packet_is_sent() -> None:
    shell = shell_with(20)
    kept = [shown(shell).buffer_id for _ in range(N_BUFFERS)]
    assert len(set(kept)) == N_BUFFERS
    message = shown(shell)
    assert (message.buffer_id, message.data) == (OFP_NO_BUFFER, FRAME)
    shell.now += HOLD_SECONDS
    assert shown(shell).buffer_id not in (OFP_NO_BUFFER, *kept), "the oldest has had its time"
    assert error(shell, PacketOut(kept[0], 1)) == EMPTY
    assert shell.receive(PacketOut(kept[1], 1)) == []


def test_numbers_are_never_that_of_no_buffer() -> None:
    buffers = PacketBuffers(size=2)
    buffers._given_out = OFP_NO_BUFFER - 1
    packet = BufferedPacket(FRAME, 1, 0)
    assert [buffers.keep(packet, 0.0) for _ in range(3)] == [OFP_NO_BUFFER - 1, 0, OFP_NO_BUFFER]
    with pytest.raises(ProtocolError):
        buffers.find(1)
    assert buffers.find(0) is packet
    assert len(buffers) == 2


def test_errors_name_the_request() -> None:
    (answer,) = Shell().receive(PacketOut(3, 1, (), xid=9))
    assert isinstance(answer, Error)
    assert (answer.type, answer.code, answer.xid) == (*UNKNOWN, 9)
