"""Ports that come, change, are configured and go: port status, what the fast path is told, and where frames still go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from switch_shell import Shell, mac, port
from vectors import frames

from appliance.model.actions import ApplyActions, Output
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import PortConfig, PortNo, PortState
from appliance.openflow.errors import ErrorType, PortModFailed
from appliance.openflow.messages import FlowMod, PacketIn, PacketOut, PortMod, PortReason, PortStatus, SetAsync
from appliance.switch.effects import Advertise, UpdatePort
from appliance.switch.events import PortAdded, PortChanged, PortRemoved

FRAME = frames.ethernet(0x1234, bytes(46))
ALL_CONFIG = PortConfig.PORT_DOWN | PortConfig.NO_RECV | PortConfig.NO_FWD | PortConfig.NO_PACKET_IN


def configure(shell: Shell, number: int, config: PortConfig) -> None:
    shell.receive(PortMod(number, mac(0xFF00 | number), config, ALL_CONFIG))


def output(shell: Shell, number: int) -> set[int]:
    """Where a packet-out to a port leaves."""
    before = len(shell.datapath.sent)
    shell.receive(PacketOut(actions=(Output(number),), data=FRAME))
    return {where for where, _ in shell.datapath.sent[before:]}


def test_every_controller_hears_of_a_port() -> None:
    shell = Shell(2)
    shell.open(2)
    added = port(7)
    assert UpdatePort(7, True, True, True) in shell.step(PortAdded(added))
    down = replace(added, state=PortState.LINK_DOWN)
    assert UpdatePort(7, False, True, False) in shell.step(PortChanged(down))
    shell.step(PortRemoved(7))
    wanted = [PortStatus(PortReason.ADD, added), PortStatus(PortReason.MODIFY, down), PortStatus(PortReason.DELETE, down)]
    assert shell.told(PortStatus) == shell.told(PortStatus, 2) == wanted
    assert [known.number for known in shell.switch.ports] == [1, 2]


def test_no_change_is_not_told() -> None:
    shell = Shell(1)
    assert shell.step(PortChanged(port(1))) == []
    assert shell.step(PortAdded(port(1))) == []
    assert shell.step(PortChanged(port(9))) == []
    assert shell.step(PortRemoved(9)) == []


def test_a_controller_may_not_want_to_hear() -> None:
    shell = Shell(1)
    shell.receive(SetAsync(port_status_mask=(1 << PortReason.DELETE, 0)))
    shell.step(PortAdded(port(2)))
    shell.step(PortRemoved(2))
    assert [status.reason for status in shell.told(PortStatus)] == [PortReason.DELETE]


@pytest.mark.parametrize(
    ("config", "forward", "receive"),
    [
        (PortConfig.PORT_DOWN, False, False),
        (PortConfig.NO_RECV, True, False),
        (PortConfig.NO_FWD, False, True),
        (PortConfig.NO_PACKET_IN, True, True),
    ],
)
def test_port_mod(config: PortConfig, forward: bool, receive: bool) -> None:
    shell = Shell(3)
    configure(shell, 2, config)
    assert shell.effects[-2] == UpdatePort(2, forward, receive, config != PortConfig.PORT_DOWN)
    assert shell.told(PortStatus) == [PortStatus(PortReason.MODIFY, replace(port(2), config=config))]
    assert shell.switch.ports[1].config == config
    assert output(shell, 2) == ({2} if forward else set())
    assert output(shell, PortNo.FLOOD) == ({1, 2, 3} if forward else {1, 3})
    shell.step(PortChanged(replace(port(2), curr_speed=5)))
    assert shell.switch.ports[1].config == config, "netlink knows nothing of it"
    configure(shell, 2, PortConfig.NONE)
    assert shell.effects[-2] == UpdatePort(2, True, True, True)


def test_port_mod_changes_the_masked_bits_only() -> None:
    shell = Shell(1)
    configure(shell, 1, PortConfig.NO_FWD)
    shell.receive(PortMod(1, mac(0xFF01), PortConfig.NONE, PortConfig.NO_RECV))
    assert shell.switch.ports[0].config == PortConfig.NO_FWD


@pytest.mark.parametrize(
    ("mod", "code"),
    [
        (PortMod(9, mac(0xFF09)), PortModFailed.BAD_PORT),
        (PortMod(PortNo.ANY, mac(0xFF01)), PortModFailed.BAD_PORT),
        (PortMod(1, mac(0xFF02)), PortModFailed.BAD_HW_ADDR),
        (PortMod(1, mac(0xFF01), PortConfig.NONE, PortConfig(2)), PortModFailed.BAD_CONFIG),
        (PortMod(1, mac(0xFF01), advertise=1), PortModFailed.BAD_ADVERTISE),
    ],
)
def test_port_mods_that_are_refused(mod: PortMod, code: PortModFailed) -> None:
    assert Shell().refused(mod) == (ErrorType.PORT_MOD_FAILED, code)


def test_a_port_whose_packets_are_not_for_the_controller() -> None:
    shell = Shell(2)
    shell.receive(FlowMod(priority=0, instructions=(ApplyActions((Output(PortNo.CONTROLLER), Output(2))),)))
    configure(shell, 1, PortConfig.NO_PACKET_IN)
    assert shell.inject(1, FRAME) == [(2, FRAME)]
    assert shell.told(PacketIn) == []
    configure(shell, 1, PortConfig.NONE)
    shell.inject(1, FRAME)
    assert len(shell.told(PacketIn)) == 1


def test_such_a_port_still_sends_what_a_flow_entry_outputs_to_the_controller() -> None:
    """As a spanning tree's BPDUs, which must come in also while the port takes part in nothing else."""
    shell = Shell(2)
    shell.receive(FlowMod(priority=1, instructions=(ApplyActions((Output(PortNo.CONTROLLER),)),)))
    configure(shell, 1, PortConfig.NO_PACKET_IN)
    shell.inject(1, FRAME)
    (message,) = shell.told(PacketIn)
    assert message.reason == PacketInReason.ACTION


def test_frames_for_a_port_that_is_down_are_dropped() -> None:
    shell = Shell(2)
    shell.receive(FlowMod(instructions=(ApplyActions((Output(2),)),)))
    assert shell.inject(1, FRAME) == [(2, FRAME)]
    shell.step(PortChanged(replace(port(2), state=PortState.LINK_DOWN)))
    assert shell.inject(1, FRAME) == []
    assert output(shell, 2) == set()
    shell.step(PortChanged(port(2)))
    assert shell.inject(1, FRAME) == [(2, FRAME)]


# ── liveness and advertised features ───────────────────────────────────────────────────────────────────────────────────
def test_a_port_that_is_configured_down_is_not_live() -> None:
    shell = Shell(1)
    shell.step(PortChanged(replace(port(1), state=PortState.LIVE)))
    configure(shell, 1, PortConfig.NO_FWD)
    assert shell.switch.ports[0].state == PortState.LIVE
    configure(shell, 1, PortConfig.PORT_DOWN)
    assert shell.switch.ports[0].state == PortState.NONE
    assert shell.effects[-2] == UpdatePort(1, False, False, False)
    configure(shell, 1, PortConfig.NONE)
    assert shell.switch.ports[0].state == PortState.LIVE, "as its link says"


@pytest.mark.parametrize(("advertise", "told"), [(0, False), (0x6, False), (0x2, True), (0x16, True)])
def test_port_mod_changes_what_is_advertised(advertise: int, told: bool) -> None:
    shell = Shell(1)
    shell.step(PortChanged(replace(port(1), supported=0x16, advertised=0x6)))
    before = len(shell.effects)
    assert shell.receive(PortMod(1, port(1).hw_addr, advertise=advertise)) == []
    assert shell.effects[before:] == ([Advertise(1, advertise)] if told else [])
    refused = PortMod(1, port(1).hw_addr, PortConfig.NO_FWD, PortConfig.NO_FWD, advertise | 0x8)
    assert shell.refused(refused) == (ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_ADVERTISE)
    assert shell.switch.ports[0].config == PortConfig.NONE
