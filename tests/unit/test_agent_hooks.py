"""Programs that somebody else takes off a port's interface: they are put back, ever less often where they do not stay."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace

import pytest
from agent_support import interface, running, until

from appliance.agent.client import ControlClient
from appliance.agent.green import in_thread
from appliance.agent.hooks import FIRST_DELAY, LONGEST_DELAY, LOOK_SECONDS, STEADY_SECONDS, Hooks
from appliance.datapath.driver import DatapathError, DatapathPort
from appliance.datapath.fake import FakeDatapath
from appliance.model.ports import Hook, PortState
from appliance.openflow.messages import BarrierReply, BarrierRequest, PortReason, PortStatus

AT_TC, AT_XDP, BOTH = frozenset({Hook.TC}), frozenset({Hook.XDP}), frozenset(Hook)
PORT, TITLE = 1, "port 1 (eth1)"


class Rig:
    """One port, and a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.datapath = FakeDatapath(lambda: self.now)
        self.datapath.attach(DatapathPort(PORT, "eth1", 101, Hook.XDP))
        self.hooks = Hooks(self.datapath)
        self.tries: list[float] = []
        put_back, self.looks, missing = self.datapath.put_back, 0, self.datapath.missing

        def trying(number: int) -> None:
            self.tries.append(self.now)
            put_back(number)

        def looking(number: int) -> frozenset[Hook]:
            self.looks += 1
            return missing(number)

        self.datapath.put_back, self.datapath.missing = trying, looking  # type: ignore[method-assign]

    def taken_off(self, hooks: frozenset[Hook] = AT_TC) -> list[int]:
        """Now, and the agent hears of it."""
        self.datapath.taken_off[PORT] = hooks
        self.hooks.heard(PORT, TITLE)
        return self.hooks.put_back(self.now)

    def wait(self, seconds: float) -> list[int]:
        """The ports that are others now, after so many seconds of ticks."""
        changed = []
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            changed += self.hooks.put_back(self.now)
        return changed


@pytest.fixture
def rig(caplog: pytest.LogCaptureFixture) -> Rig:
    caplog.set_level(logging.INFO, "ofswitch")
    return Rig()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("hooks", "where"), [(AT_TC, "TC"), (AT_XDP, "XDP"), (BOTH, "XDP and TC")])
def test_what_is_taken_off_is_put_back_at_once_and_told_once(rig, caplog, hooks, where):
    assert rig.taken_off(hooks) == [], "nobody sees that it was dead"
    assert rig.datapath.taken_off == {}
    assert rig.hooks.problem(PORT) == ""
    rig.wait(5)
    assert warnings(caplog) == [f"port 1 (eth1): somebody took our program off at {where}; it has been put back"]


def test_nothing_is_done_or_told_where_all_is_there(rig, caplog):
    rig.hooks.heard(PORT, TITLE)
    assert rig.hooks.put_back(rig.now) == []
    assert (rig.looks, rig.tries, caplog.records) == (1, [], [])


def test_a_port_is_looked_at_only_so_often_however_much_is_heard(rig):
    for _ in range(1000):
        rig.hooks.heard(PORT, TITLE)
        rig.hooks.put_back(rig.now)
        rig.now += 10 * LOOK_SECONDS / 1000
    assert 10 <= rig.looks <= 11
    rig.wait(2)
    looks = rig.looks
    rig.wait(100)
    assert rig.looks == looks, "nothing is heard, so nobody looks"


def test_who_keeps_on_taking_it_off_is_answered_ever_less_often(rig, caplog):
    for _ in range(500):
        rig.taken_off()
        rig.now += 1.0
    gaps = [after - before for before, after in zip(rig.tries, rig.tries[1:], strict=False)]
    assert gaps[:5] == [FIRST_DELAY, 2.0, 4.0, 8.0, 16.0]
    assert set(gaps[5:]) == {LONGEST_DELAY}
    assert len(warnings(caplog)) <= len(rig.tries) + 1, "one for each time"
    rig.wait(LONGEST_DELAY)  # it stays
    rig.wait(STEADY_SECONDS)
    assert rig.taken_off() == []
    assert rig.datapath.taken_off == {}, "forgotten"
    tried = rig.now
    rig.now += 0.5
    rig.taken_off()
    rig.wait(2)
    assert rig.tries[-1] - tried <= 2 * FIRST_DELAY, "the first delay again"


def test_until_it_is_put_back_the_port_is_dead(rig):
    for _ in range(2):
        assert rig.taken_off() == []
        rig.wait(1)
    assert rig.taken_off() == [PORT]
    assert rig.hooks.dead(PORT)
    assert rig.hooks.problem(PORT) == "somebody took our program off at TC again; as it does not stay, it is put back after a while"
    assert rig.wait(1) == [PORT]
    assert not rig.hooks.dead(PORT)
    assert rig.hooks.problem(PORT) == ""


def test_what_cannot_be_put_back_is_told_once_and_tried_again(rig, caplog):
    rig.datapath.refusal = "attach to eth1 at TC: priority 1, handle 0xf5 is taken by filter 'other' of another program"
    assert rig.taken_off() == [PORT]
    assert rig.hooks.dead(PORT)
    rig.wait(300)
    problem = f"somebody took our program off at TC, and it cannot be put back: {rig.datapath.refusal}"
    assert warnings(caplog) == [f"port 1 (eth1): {problem}"]
    assert rig.hooks.problem(PORT) == problem
    assert 5 < len(rig.tries) < 5 + 300 / LONGEST_DELAY + 2
    rig.datapath.refusal = ""
    assert rig.wait(LONGEST_DELAY) == [PORT]
    assert not rig.hooks.dead(PORT)
    assert caplog.messages[-1] == "port 1 (eth1): our programs are all there again"


def test_without_the_program_at_xdp_the_port_lives_by_that_at_tc(rig):
    rig.datapath.refusal = "program 7 'other' holds it"
    assert rig.taken_off(AT_XDP) == []
    assert not rig.hooks.dead(PORT)
    assert "at XDP, and it cannot be put back" in rig.hooks.problem(PORT)


@pytest.mark.parametrize("error", [DatapathError("not permitted"), OSError(errno.EMFILE, "Too many open files")])
def test_what_cannot_be_looked_at_is_looked_at_later(rig, caplog, error):
    missing = rig.datapath.missing

    def fails(number: int) -> frozenset[Hook]:
        raise error

    rig.datapath.missing = fails
    assert rig.taken_off() == []
    rig.wait(10)
    (told,) = warnings(caplog)
    assert told.startswith("port 1 (eth1): whether our programs are still on its interface cannot be told: ")
    rig.datapath.missing = missing
    rig.wait(2)
    assert rig.datapath.taken_off == {}
    assert rig.hooks.problem(PORT) == ""


def test_a_port_that_has_gone_is_forgotten(rig):
    rig.datapath.refusal = "no"
    rig.taken_off()
    rig.hooks.gone(PORT)
    tries = len(rig.tries)
    rig.wait(100)
    assert (len(rig.tries), rig.hooks.problem(PORT), rig.hooks.dead(PORT)) == (tries, "", False)


# ── the agent ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_agent_puts_filters_and_programs_back_as_it_hears_of_them(box, peer):
    box.datapath.taken_off[2] = AT_TC
    box.links.change_filters(102)
    until(lambda: not box.datapath.taken_off)
    box.datapath.taken_off[3] = AT_TC
    box.links.change(103, replace(interface(3), xdp_program=77))
    until(lambda: not box.datapath.taken_off)
    peer.send(BarrierRequest())
    until(lambda: peer.read() and any(isinstance(message, BarrierReply) for message in peer.heard))
    assert not [message for message in peer.heard if isinstance(message, PortStatus)], "no controller need know"


def test_a_port_that_cannot_have_them_is_a_link_that_is_down(box, peer):
    box.datapath.refusal = "it is taken"
    box.datapath.taken_off[2] = AT_TC
    box.links.change_filters(102)
    status = peer.expect(PortStatus)
    assert (status.reason, status.port.number, status.port.state) == (PortReason.MODIFY, 2, PortState.LINK_DOWN)
    assert (box.datapath.ports[2].forward, box.datapath.ports[2].live) == (False, False)
    with ControlClient(box.config.control_socket) as client:
        two = in_thread(lambda: client.request("ports"))[1]
    assert (two["state"], two["link"]) == ("down", "up")
    assert two["problem"] == "somebody took our program off at TC, and it cannot be put back: it is taken"
    box.links.change(102, replace(interface(2), mtu=1400))  # which makes it no better
    box.datapath.refusal = ""
    status = peer.expect(PortStatus)
    assert (status.port.number, status.port.state) == (2, PortState.LIVE)
    assert (box.datapath.ports[2].forward, box.datapath.ports[2].live) == (True, True)


def test_what_an_agent_that_died_left_is_not_put_back(tmp_path):
    """As long as its programs go on, ours are not there."""
    with running(tmp_path) as box:
        box.agent.ports.waiting.add(2)
        box.datapath.taken_off[2] = AT_TC
        box.datapath.taken_off[3] = AT_TC
        box.links.change_filters(102)
        box.links.change_filters(103)
        until(lambda: 3 not in box.datapath.taken_off)
        assert 2 in box.datapath.taken_off
