"""Several controllers: roles and generations, what each is told, what a slave may not do, and auxiliary connections."""

from __future__ import annotations

import pytest
from switch_shell import Shell, mac, port
from vectors import frames

from appliance.model.actions import OFPCML_NO_BUFFER, ApplyActions, Output
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import PortNo
from appliance.openflow.errors import BadRequest, ErrorType, RoleRequestFailed
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowRemoved,
    FlowStatsRequest,
    FragmentHandling,
    GetAsyncReply,
    GetAsyncRequest,
    GetConfigReply,
    GetConfigRequest,
    GroupMod,
    GroupModCommand,
    GroupType,
    Message,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    PacketOut,
    PortDescRequest,
    PortMod,
    PortStatus,
    Role,
    RoleReply,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableFeatures,
    TableFeaturesRequest,
    TableMod,
)
from appliance.switch.events import MessageReceived, PortAdded

UNDEFINED = 0xFFFFFFFFFFFFFFFF
STALE = (ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.STALE)
FRAME = frames.ethernet(0x1234, bytes(46), dst=mac(2), src=mac(1))


def to_controller(shell: Shell, connection: int = 1) -> None:
    actions = ApplyActions((Output(PortNo.CONTROLLER, OFPCML_NO_BUFFER),))
    shell.receive(FlowMod(priority=1, flags=FlowModFlags.SEND_FLOW_REM, instructions=(actions,)), connection)


def role(shell: Shell, wanted: Role, generation: int = 0, connection: int = 1) -> RoleReply | tuple[int, int]:
    (answer,) = shell.receive(RoleRequest(wanted, generation, xid=5), connection)
    if isinstance(answer, Error):
        return answer.type, answer.code
    assert isinstance(answer, RoleReply)
    assert answer.xid == 5
    return answer


# ── roles ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_controller_starts_as_equal_and_no_generation_is_known() -> None:
    shell = Shell()
    assert role(shell, Role.NOCHANGE, 77) == RoleReply(Role.EQUAL, UNDEFINED, xid=5)
    assert role(shell, Role.EQUAL, 77) == RoleReply(Role.EQUAL, UNDEFINED, xid=5), "its generation does not count"


def test_a_new_master_makes_the_old_one_a_slave() -> None:
    shell = Shell()
    for connection in (2, 3):
        shell.open(connection)
    assert role(shell, Role.MASTER, 1) == RoleReply(Role.MASTER, 1, xid=5)
    assert role(shell, Role.MASTER, 2, 2) == RoleReply(Role.MASTER, 2, xid=5)
    assert role(shell, Role.NOCHANGE) == RoleReply(Role.SLAVE, 2, xid=5)
    assert role(shell, Role.NOCHANGE, 0, 3) == RoleReply(Role.EQUAL, 2, xid=5), "an equal stays one"
    assert role(shell, Role.MASTER, 2, 2) == RoleReply(Role.MASTER, 2, xid=5), "the master may say so again"
    assert role(shell, Role.SLAVE, 3, 2) == RoleReply(Role.SLAVE, 3, xid=5)
    assert role(shell, Role.EQUAL, 0) == RoleReply(Role.EQUAL, 3, xid=5)


@pytest.mark.parametrize(
    ("known", "asked", "stale"),
    [
        (5, 4, True),
        (5, 5, False),
        (5, 6, False),
        (5, 5 + (1 << 63) - 1, False),
        (5, 5 + (1 << 63), True),
        (UNDEFINED, 0, False),
        (0, UNDEFINED, True),
    ],
)
@pytest.mark.parametrize("wanted", [Role.MASTER, Role.SLAVE])
def test_generations_are_compared_round_the_clock(wanted: Role, known: int, asked: int, stale: bool) -> None:
    shell = Shell()
    shell.open(2)
    role(shell, Role.MASTER, known)
    if stale:
        assert role(shell, wanted, asked, 2) == STALE
        assert role(shell, Role.NOCHANGE, 0, 2) == RoleReply(Role.EQUAL, known, xid=5)
        assert role(shell, Role.NOCHANGE) == RoleReply(Role.MASTER, known, xid=5)
    else:
        assert role(shell, wanted, asked, 2) == RoleReply(wanted, asked, xid=5)


def test_the_generation_outlives_the_controller() -> None:
    shell = Shell()
    role(shell, Role.MASTER, 9)
    shell.close(1)
    shell.open(2)
    assert role(shell, Role.MASTER, 8, 2) == STALE


# ── slaves ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
REFUSED: list[Message] = [
    FlowMod(),
    FlowMod(command=FlowModCommand.DELETE),
    GroupMod(GroupModCommand.DELETE, GroupType.ALL, 1),
    MeterMod(MeterModCommand.DELETE, MeterFlags.NONE, 1),
    PortMod(1, port(1).hw_addr),
    TableMod(0),
    PacketOut(actions=(Output(2),), data=FRAME),
    SetConfig(FragmentHandling.DROP, 100),
    MultipartRequest(TableFeaturesRequest((TableFeatures(0),))),
]


@pytest.mark.parametrize("message", REFUSED, ids=lambda message: type(message).__name__)
def test_a_slave_changes_nothing_and_sends_nothing(message: Message) -> None:
    shell = Shell()
    role(shell, Role.SLAVE, 1)
    assert shell.refused(message) == (ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE)
    role(shell, Role.EQUAL)
    assert not any(isinstance(answer, Error) for answer in shell.receive(message)), "an equal may"


def test_a_slave_may_ask_and_set_what_concerns_itself() -> None:
    shell = Shell()
    role(shell, Role.SLAVE, 1)
    shell.ask(FeaturesRequest(), FeaturesReply)
    shell.ask(BarrierRequest(), BarrierReply)
    for body in (FlowStatsRequest(), PortDescRequest(), TableFeaturesRequest()):
        shell.ask(MultipartRequest(body), MultipartReply)
    assert shell.receive(SetConfig(FragmentHandling.NORMAL, 99)) == []
    assert shell.ask(GetConfigRequest(), GetConfigReply).miss_send_len == 99
    assert shell.receive(SetAsync((7, 7), (7, 7), (15, 15))) == []


# ── asynchronous messages ──────────────────────────────────────────────────────────────────────────────────────────────
def everything_happens(shell: Shell, connection: int) -> None:
    to_controller(shell, connection)
    shell.inject(1, FRAME)
    shell.step(PortAdded(port(9)))
    shell.receive(FlowMod(command=FlowModCommand.DELETE), connection)


def test_a_slave_is_told_of_ports_only() -> None:
    shell = Shell()
    shell.open(2)
    role(shell, Role.SLAVE, 1, 2)
    everything_happens(shell, 1)
    assert [len(shell.told(kind, 1)) for kind in (PacketIn, PortStatus, FlowRemoved)] == [1, 1, 1]
    assert [len(shell.told(kind, 2)) for kind in (PacketIn, PortStatus, FlowRemoved)] == [0, 1, 0]


def test_a_slave_is_told_what_it_asked_for() -> None:
    shell = Shell()
    shell.open(2)
    shell.receive(SetAsync((0, 2), (0, 0), (0, 4)), 2)
    everything_happens(shell, 1)
    assert [len(shell.told(kind, 2)) for kind in (PacketIn, PortStatus, FlowRemoved)] == [0, 0, 0], "as an equal it wants nothing"
    role(shell, Role.SLAVE, 1, 2)
    everything_happens(shell, 1)
    assert [len(shell.told(kind, 2)) for kind in (PacketIn, PortStatus, FlowRemoved)] == [1, 0, 1]
    assert shell.told(PacketIn, 2)[0].reason is PacketInReason.ACTION
    assert shell.ask(GetAsyncRequest(), GetAsyncReply, 2) == GetAsyncReply((0, 2), (0, 0), (0, 4))


# ── auxiliary connections ──────────────────────────────────────────────────────────────────────────────────────────────
def test_an_auxiliary_connection_is_answered_on_itself() -> None:
    shell = Shell()
    shell.open_auxiliary(11, 3)
    assert shell.ask(FeaturesRequest(), FeaturesReply).auxiliary_id == 0
    assert shell.ask(FeaturesRequest(), FeaturesReply, 11).auxiliary_id == 3
    shell.ask(BarrierRequest(xid=4), BarrierReply, 11)
    (answer,) = shell.receive(TableMod(254), 11)
    assert isinstance(answer, Error)
    assert len(shell.switch.controllers) == 1


def test_what_is_set_on_one_connection_holds_for_all_of_the_controller() -> None:
    shell = Shell()
    shell.open_auxiliary(11, 1)
    shell.receive(SetConfig(FragmentHandling.NORMAL, 44), 11)
    assert shell.ask(GetConfigRequest(), GetConfigReply).miss_send_len == 44
    assert role(shell, Role.SLAVE, 1, 11) == RoleReply(Role.SLAVE, 1, xid=5)
    assert shell.refused(TableMod(0)) == (ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE)


def test_packet_ins_are_spread_over_the_auxiliary_connections_flow_by_flow() -> None:
    shell = Shell()
    shell.open_auxiliary(11, 1)
    shell.open_auxiliary(12, 2)
    to_controller(shell)
    ways = []
    for number in range(40):
        raw = frames.ethernet(0x1234, bytes(46), dst=mac(2), src=mac(number))
        before = [len(shell.told(PacketIn, connection)) for connection in (1, 11, 12)]
        for _ in range(2):
            shell.inject(1, raw)
        ways.append(tuple(len(shell.told(PacketIn, c)) - b for c, b in zip((1, 11, 12), before, strict=True)))
    assert set(ways) == {(0, 2, 0), (0, 0, 2)}
    everything_happens(shell, 11)
    assert len(shell.told(PortStatus)) == 1
    assert shell.told(PortStatus, 11) == shell.told(FlowRemoved, 11) == []


def test_connections_that_end() -> None:
    shell = Shell()
    shell.open_auxiliary(11, 1)
    shell.open_auxiliary(12, 1, main=99)
    assert shell.receive(BarrierRequest(), 12) == [], "its main connection is not there"
    shell.close(12)
    shell.close(11)
    to_controller(shell)
    shell.inject(1, FRAME)
    assert len(shell.told(PacketIn)) == 1
    shell.open_auxiliary(13, 1)
    shell.close(1)
    assert shell.step(MessageReceived(13, BarrierRequest(), b"")) == []
    shell.close(13)
    assert shell.switch.controllers == ()


def test_a_standalone_switch_is_led_as_long_as_a_main_connection_is_there() -> None:
    shell = Shell(fail_mode="standalone")
    shell.open_auxiliary(11, 1)
    assert not shell.switch.standalone
    shell.close(11)
    assert not shell.switch.standalone
    shell.close(1)
    assert shell.switch.standalone
