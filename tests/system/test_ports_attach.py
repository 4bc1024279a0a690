"""Attaching programs to a veth in a network namespace of the test's own: what the kernel then holds, and what it held before."""

from __future__ import annotations

import os
from collections.abc import Iterator

import own_namespace
import pytest
from pyroute2 import IPRoute

from appliance.datapath import netlink, programs
from appliance.datapath.driver import DatapathError
from appliance.datapath.netlink import XdpMode
from appliance.datapath.programs import SCHED_CLS, XDP

pytestmark = pytest.mark.root

TC_ACT_OK, XDP_PASS = 0, 2
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3


def load(kind: int, name: str, verdict: int) -> int:
    return programs.load(kind, name, programs.returns(verdict))


@pytest.fixture
def veth() -> Iterator[int]:
    """The ifindex of a veth."""
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer="ofsb")
        yield ip.link_lookup(ifname="ofsa")[0]


@pytest.fixture
def tc_program() -> Iterator[int]:
    fd = load(SCHED_CLS, "ofswitch_tc", TC_ACT_OK)
    yield fd
    os.close(fd)


@pytest.fixture
def xdp_program() -> Iterator[int]:
    fd = load(XDP, "ofswitch_xdp", XDP_PASS)
    yield fd
    os.close(fd)


@pytest.fixture
def foreign_xdp() -> Iterator[int]:
    fd = load(XDP, "somebody", XDP_PASS)
    yield fd
    os.close(fd)


def qdiscs(index: int) -> list[str]:
    with IPRoute() as ip:
        return [q.get_attr("TCA_KIND") for q in ip.get_qdiscs(index) if q.get_attr("TCA_KIND") in ("clsact", "ingress")]


def delete_link(index: int) -> None:
    with IPRoute() as ip:
        ip.link("del", index=index)


# ── TC ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_tc_attach_and_detach_leave_nothing(veth: int, tc_program: int) -> None:
    netlink.attach_tc(veth, tc_program)
    (found,) = netlink.tc_filters(veth)
    assert (found.kind, found.priority, found.handle, found.ingress) == ("bpf", netlink.TC_PRIORITY, netlink.TC_HANDLE, True)
    assert found.ours
    assert found.made_clsact
    netlink.detach_tc(veth)
    assert netlink.tc_filters(veth) == []
    assert qdiscs(veth) == []


def test_tc_replaces_the_filter_of_an_earlier_ofswitch(veth: int, tc_program: int) -> None:
    netlink.attach_tc(veth, tc_program, xdp_program=77)
    assert netlink.tc_filters(veth)[0].xdp_program == 77
    netlink.attach_tc(veth, tc_program)
    (found,) = netlink.tc_filters(veth)
    assert found.xdp_program == 0
    assert found.made_clsact, "the earlier ofswitch made the qdisc: the later one must remove it"
    netlink.detach_tc(veth)
    assert qdiscs(veth) == []


def test_tc_keeps_a_qdisc_that_was_there_before(veth: int, tc_program: int) -> None:
    with IPRoute() as ip:
        ip.tc("add", "clsact", veth)
    netlink.attach_tc(veth, tc_program)
    assert not netlink.tc_filters(veth)[0].made_clsact
    netlink.detach_tc(veth)
    assert netlink.tc_filters(veth) == []
    assert qdiscs(veth) == ["clsact"]


@pytest.mark.parametrize("parent", [INGRESS, EGRESS])
def test_tc_keeps_the_qdisc_while_another_filter_is_there(veth: int, tc_program: int, parent: int) -> None:
    netlink.attach_tc(veth, tc_program)
    with IPRoute() as ip:
        ip.tc("add-filter", "bpf", veth, handle=1, fd=tc_program, name="other", parent=parent, prio=9, direct_action=True)
    netlink.detach_tc(veth)
    assert [f.name for f in netlink.tc_filters(veth)] == ["other"]


def test_tc_does_not_take_the_place_of_another(veth: int, tc_program: int) -> None:
    with IPRoute() as ip:
        ip.tc("add", "clsact", veth)
        place = {"handle": netlink.TC_HANDLE, "prio": netlink.TC_PRIORITY, "parent": INGRESS}
        ip.tc("add-filter", "bpf", veth, fd=tc_program, name="cilium", direct_action=True, **place)
    with pytest.raises(DatapathError, match="'cilium'"):
        netlink.attach_tc(veth, tc_program)
    netlink.detach_tc(veth)
    assert [f.name for f in netlink.tc_filters(veth)] == ["cilium"]


def test_tc_put_back_in_the_qdisc_that_it_made_takes_that_away_with_it(veth: int, tc_program: int) -> None:
    assert netlink.attach_tc(veth, tc_program)
    with IPRoute() as ip:
        ip.tc("del-filter", "bpf", veth, handle=netlink.TC_HANDLE, parent=INGRESS, prio=netlink.TC_PRIORITY)
    assert not netlink.attach_tc(veth, tc_program), "whose the qdisc is, nobody says"
    with IPRoute() as ip:
        ip.tc("del-filter", "bpf", veth, handle=netlink.TC_HANDLE, parent=INGRESS, prio=netlink.TC_PRIORITY)
    assert netlink.attach_tc(veth, tc_program, made_clsact=True)
    netlink.detach_tc(veth)
    assert qdiscs(veth) == []


def test_what_is_attached_is_told(veth: int, tc_program: int, xdp_program: int) -> None:
    assert netlink.attached(veth) == (0, False)
    program_id = netlink.attach_xdp(veth, xdp_program)
    netlink.attach_tc(veth, tc_program, program_id)
    assert netlink.attached(veth) == (program_id, True)
    assert netlink.attached(veth, egress=True) == (program_id, False)
    netlink.attach_tc(veth, tc_program, egress=True)
    assert netlink.attached(veth, egress=True) == (program_id, True)
    delete_link(veth)
    assert netlink.attached(veth) is None


def test_tc_works_behind_an_ingress_qdisc(veth: int, tc_program: int) -> None:
    with IPRoute() as ip:
        ip.tc("add", "ingress", veth)
    netlink.attach_tc(veth, tc_program)
    assert netlink.tc_filters(veth)[0].ours
    netlink.detach_tc(veth)
    assert qdiscs(veth) == ["ingress"]


def test_tc_refusal_leaves_no_qdisc_and_says_why(veth: int, xdp_program: int) -> None:
    with pytest.raises(DatapathError, match="ofsa at TC: Invalid argument"):
        netlink.attach_tc(veth, xdp_program)
    assert qdiscs(veth) == []


def test_tc_interface_gone(veth: int, tc_program: int) -> None:
    netlink.attach_tc(veth, tc_program)
    delete_link(veth)
    netlink.detach_tc(veth)
    assert netlink.tc_filters(veth) == []
    with pytest.raises(DatapathError, match="gone"):
        netlink.attach_tc(veth, tc_program)


# ── XDP ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("mode", list(XdpMode))
def test_xdp_attach_and_detach(veth: int, xdp_program: int, mode: XdpMode) -> None:
    program_id = netlink.attach_xdp(veth, xdp_program, mode)
    assert program_id == netlink.xdp_program_id(veth) == programs.describe(xdp_program).id
    netlink.detach_xdp(veth)
    assert netlink.xdp_program_id(veth) == 0


@pytest.mark.parametrize("old_mode", list(XdpMode))
@pytest.mark.parametrize("new_mode", list(XdpMode))
def test_xdp_takes_over_its_own(veth: int, xdp_program: int, old_mode: XdpMode, new_mode: XdpMode) -> None:
    old = load(XDP, "ofswitch_older", XDP_PASS)
    netlink.attach_xdp(veth, old, old_mode)
    os.close(old)  # the agent died; the program stays on the interface
    assert netlink.attach_xdp(veth, xdp_program, new_mode) == programs.describe(xdp_program).id


@pytest.mark.parametrize("mode", list(XdpMode))
def test_xdp_never_replaces_another(veth: int, xdp_program: int, foreign_xdp: int, mode: XdpMode) -> None:
    with IPRoute() as ip:
        ip.link("set", index=veth, xdp={"attrs": [("IFLA_XDP_FD", foreign_xdp), ("IFLA_XDP_FLAGS", mode.value)]})
    other = programs.describe(foreign_xdp).id
    with pytest.raises(DatapathError, match=rf"ofsa at XDP: program {other} 'somebody' holds it"):
        netlink.attach_xdp(veth, xdp_program)
    netlink.detach_xdp(veth)
    assert netlink.xdp_program_id(veth) == other


def test_xdp_takes_over_its_own_without_reading_its_name(
    veth: int, xdp_program: int, foreign_xdp: int, tc_program: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "open_program", lambda program_id: None)  # what CAP_BPF without CAP_SYS_ADMIN sees
    first = netlink.attach_xdp(veth, foreign_xdp)
    with pytest.raises(DatapathError, match=rf"program {first}, whose name only CAP_SYS_ADMIN may read"):
        netlink.attach_xdp(veth, xdp_program)
    netlink.attach_tc(veth, tc_program, xdp_program=first)
    second = netlink.attach_xdp(veth, xdp_program)
    assert second == programs.describe(xdp_program).id
    netlink.attach_tc(veth, tc_program, xdp_program=second)
    netlink.detach_xdp(veth)
    netlink.detach_tc(veth)
    assert (netlink.xdp_program_id(veth), netlink.tc_filters(veth)) == (0, [])


def test_xdp_refusal_carries_the_kernel_words(veth: int, xdp_program: int) -> None:
    with IPRoute() as ip:
        for index in ip.link_lookup(ifname="ofsb"):
            ip.link("set", index=index, mtu=9000)
    with pytest.raises(DatapathError, match=r"(?i)mtu"):
        netlink.attach_xdp(veth, xdp_program, XdpMode.NATIVE)


def test_xdp_interface_gone(veth: int, xdp_program: int) -> None:
    netlink.attach_xdp(veth, xdp_program)
    delete_link(veth)
    netlink.detach_xdp(veth)
    assert netlink.xdp_program_id(veth) == 0
    with pytest.raises(DatapathError, match="gone"):
        netlink.attach_xdp(veth, xdp_program)


def test_loaded_programs_are_found_by_prefix(xdp_program: int) -> None:
    mine = programs.describe(xdp_program)
    assert mine.name == "ofswitch_xdp"
    assert mine in list(programs.loaded("ofswitch"))
    assert mine not in list(programs.loaded("nobody"))
    assert programs.find(mine.id) == mine
    assert programs.find(0xFFFFFFF) is None
