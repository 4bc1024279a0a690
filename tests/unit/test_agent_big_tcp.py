"""BIG TCP on all ports or on none, as ports come, change and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent_support import Box, interface, running, until

from appliance.agent import views
from appliance.agent.links import Placement
from appliance.model.ports import Hook
from appliance.ports import Interface, LinkChange, PortError

ALL = {101, 102, 103}
TOLD = "frames of up to 184,997 bytes, as every port takes them whole"


def reasons(box: Box) -> dict[int, tuple[bool, str]]:
    agent = box.agent
    return {
        port["number"]: (port["big_tcp"], port["big_tcp_reason"]) for port in views.ports(agent.ports, agent.switch, box.datapath)
    }


def test_every_port_takes_them_so_they_are_let_in_and_taken_back_at_the_end(tmp_path: Path) -> None:
    with running(tmp_path) as box:
        assert box.links.enlarged == ALL
        assert reasons(box) == dict.fromkeys((1, 2, 3), (True, TOLD))
    assert box.links.enlarged == set()


def test_one_port_that_takes_none_is_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It comes, changes its mind, and goes."""
    caplog.set_level("INFO", "ofswitch.ports")
    with running(tmp_path) as box:
        box.links.hindrances[102] = "it is narrow"
        for _ in range(2):
            box.links.change(102, interface(2))
            until(lambda: not box.links.enlarged)
        assert caplog.text.count("no BIG TCP: port 2 (eth2): it is narrow") == 1
        told = (False, "port 2 (eth2): it is narrow")
        assert reasons(box) == {1: told, 2: (False, "it is narrow"), 3: told}

        del box.links.hindrances[102]
        # What hindered it lay beside it, and nobody said that it is gone: asked again when anything changes.
        box.links.change(101, replace(interface(1), mtu=1400))
        until(lambda: box.links.enlarged == ALL)

        box.links.hindrances[103] = "it is narrow"
        box.links.change(103, interface(3))
        until(lambda: not box.links.enlarged)
        box.links.change(103, None)
        until(lambda: box.links.enlarged == {101, 102})
        box.links.change(103, interface(3))
        until(lambda: not box.links.enlarged)


def test_a_port_at_xdp_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)
    monkeypatch.setattr(box.links, "place", lambda item, _: Placement(Hook.XDP if item.ifindex == 102 else Hook.TC, "a test"))
    try:
        box.agent.start()
        assert box.links.enlarged == set()
        assert reasons(box)[2] == (False, "XDP takes no frames that are still to be cut")
    finally:
        box.agent.close()


def test_off_takes_back_what_an_earlier_run_left(tmp_path: Path) -> None:
    box = Box(tmp_path, big_tcp="off")
    box.links.enlarged |= ALL
    try:
        box.agent.start()
        assert box.links.enlarged == set()
        assert reasons(box) == dict.fromkeys((1, 2, 3), (False, "as configured"))
    finally:
        box.agent.close()


def test_an_earlier_run_that_left_them_and_a_port_that_takes_none_now(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.links.enlarged |= ALL
    box.links.hindrances[102] = "it is narrow"
    try:
        box.agent.start()
        assert box.links.enlarged == set()
    finally:
        box.agent.close()


def test_what_an_enlarged_port_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)
    monkeypatch.setattr(box.links, "enlarge_frames", lambda item: "its other end sends none" if item.ifindex == 101 else "")
    try:
        box.agent.start()
        for mtu in (1400, 1300):
            assert reasons(box)[1] == (True, "its other end sends none")
            assert reasons(box)[2] == (True, TOLD)
            box.agent.ports.changed(LinkChange(interface(1), replace(interface(1), mtu=mtu)))
        monkeypatch.undo()
        box.agent.ports.changed(LinkChange(interface(1), interface(1)))
        assert reasons(box)[1] == (True, TOLD), "it is tried again"
    finally:
        box.agent.close()


def refusing(box: Box) -> Callable[[Interface], str]:
    def enlarge(item: Interface) -> str:
        if item.ifindex == 102:
            raise PortError("the kernel says no")
        box.links.enlarged.add(item.ifindex)
        return ""

    return enlarge


def test_what_the_kernel_refuses_hinders_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(tmp_path)
    monkeypatch.setattr(box.links, "enlarge_frames", refusing(box))
    try:
        box.agent.start()
        assert box.links.enlarged == set()
        assert reasons(box)[1] == (False, "port 2 (eth2): the kernel says no")
        assert "no BIG TCP: port 2 (eth2): the kernel says no" in caplog.text
    finally:
        box.agent.close()


def test_an_other_end_that_moved_is_enlarged_where_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    with running(tmp_path) as box:
        monkeypatch.setattr(box.links, "enlarge_frames", lambda item: calls.append(item.other_end) or "")
        box.links.change(101, replace(interface(1), mtu=1400))
        box.links.change(101, replace(interface(1), other_end=(0, 7)))
        until(lambda: calls)
        assert calls == [(0, 7)]
