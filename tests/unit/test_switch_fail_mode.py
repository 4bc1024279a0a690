"""What the switch does while no controller is connected (specification 1.3.5, section 6.3.2)."""

from __future__ import annotations

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import ApplyActions, Output
from appliance.openflow.messages import FlowMod
from appliance.switch.effects import RemoveMegaflows
from appliance.switch.events import PortRemoved, Tick


def frame(src: int, dst: int) -> bytes:
    return frames.ethernet(0x1234, bytes(46), dst=mac(dst), src=mac(src))


def to(port: int) -> FlowMod:
    return FlowMod(instructions=(ApplyActions((Output(port),)),))


@pytest.mark.parametrize("expected", [True, False])
def test_flows_stay_in_force(expected: bool) -> None:
    shell = Shell(fail_mode="secure", controllers_expected=expected)
    assert not shell.switch.standalone
    shell.receive(to(3))
    assert shell.inject(1, frame(1, 2)) == [(3, frame(1, 2))]
    shell.close(1)
    assert not shell.switch.standalone
    for _ in range(2):
        assert shell.inject(1, frame(1, 2)) == [(3, frame(1, 2))]


def test_a_visitor_does_not_end_standalone() -> None:
    shell = Shell(fail_mode="standalone", controllers_expected=False)
    assert shell.switch.standalone
    shell.receive(to(3))
    assert shell.inject(1, frame(1, 2)) == [(2, frame(1, 2)), (3, frame(1, 2))]
    shell.close(1)
    assert shell.switch.standalone


def test_a_standalone_switch_learns_until_a_controller_comes() -> None:
    shell = Shell(fail_mode="standalone", connected=False)
    assert shell.switch.standalone
    assert shell.inject(1, frame(1, 2)) == [(2, frame(1, 2)), (3, frame(1, 2))]
    assert shell.inject(2, frame(2, 1)) == [(1, frame(2, 1))]
    for _ in range(2):
        assert shell.inject(1, frame(1, 2)) == [(2, frame(1, 2))]
    shell.open(1)
    assert not shell.switch.standalone
    assert shell.datapath.megaflows == []
    assert shell.inject(1, frame(1, 2)) == []


def test_the_last_controller_gone_the_switch_learns_and_forgets_no_flows() -> None:
    shell = Shell(fail_mode="standalone")
    shell.open(2)
    shell.receive(to(3))
    assert shell.inject(1, frame(1, 2)) == [(3, frame(1, 2))]
    shell.close(1)
    assert shell.inject(1, frame(1, 2)) == [(3, frame(1, 2))]
    shell.close(2)
    assert any(isinstance(effect, RemoveMegaflows) for effect in shell.effects)
    assert shell.inject(2, frame(2, 1)) == [(1, frame(2, 1)), (3, frame(2, 1))]
    assert shell.inject(1, frame(1, 2)) == [(2, frame(1, 2))]
    (table,) = shell.switch.tables
    assert (table.lookup_count, len(table)) == (2, 1), "the tables were not asked"
    shell.open(3)
    assert shell.inject(1, frame(1, 2)) == [(3, frame(1, 2))]


def test_addresses_that_were_not_heard_of_for_long_are_forgotten() -> None:
    shell = Shell(fail_mode="standalone", connected=False)
    shell.inject(1, frame(1, 2))
    shell.inject(2, frame(2, 1))
    for _ in range(100):
        shell.now += 5
        shell.inject(2, frame(2, 1))
        shell.step(Tick())
    assert shell.inject(3, frame(3, 2)) == [(2, frame(3, 2))], "the fast path has seen it all the time"
    assert shell.inject(3, frame(3, 1)) == [(1, frame(3, 1)), (2, frame(3, 1))]


def test_a_port_that_goes_takes_its_addresses_along() -> None:
    shell = Shell(fail_mode="standalone", connected=False)
    shell.inject(1, frame(1, 2))
    assert shell.inject(2, frame(2, 1)) == [(1, frame(2, 1))]
    shell.step(PortRemoved(1))
    assert shell.inject(2, frame(2, 1)) == [(3, frame(2, 1))]
