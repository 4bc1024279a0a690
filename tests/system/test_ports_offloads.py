"""What a port's frames must not leave to others before XDP may send them on: turned off, told, and turned on again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import own_namespace
import pytest
from pyroute2 import IPRoute
from support.running_switch import running_switch

from appliance.lab import namespace
from appliance.lab.testbed import Testbed
from appliance.ports import Interface, Offloads, find
from appliance.ports.offloads import _active

pytestmark = pytest.mark.root

LEFT_TO_OTHERS = {"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"}


@contextmanager
def container() -> Iterator[str]:
    name = f"ofs-{os.getpid()}-offloads"
    namespace.create(name)
    try:
        yield name
    finally:
        namespace.remove(name)


def interface(name: str) -> Interface:
    found = find(name)
    assert found is not None
    return found


@pytest.mark.parametrize("generic", [False, True])
def test_the_other_end_of_a_veth_in_another_namespace(generic: bool) -> None:
    with container() as inside, own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "eth0", "net_ns_fd": inside})
        peer = namespace.inside(inside, lambda: interface("eth0").ifindex)
        own, offloads = interface("ofsa"), Offloads()
        before = namespace.inside(inside, partial(_active, peer)), _active(own.ifindex)
        assert before[0] >= LEFT_TO_OTHERS
        finished = offloads.finish(own, generic=generic)
        assert finished.yes
        assert finished.reason == "its other end's offloads are off, so that frames come finished"
        assert not namespace.inside(inside, partial(_active, peer)) & LEFT_TO_OTHERS
        assert not generic or "rx-vlan-hw-parse" not in _active(own.ifindex)
        offloads.restore(own.ifindex)
        assert (namespace.inside(inside, partial(_active, peer)), _active(own.ifindex)) == before


def test_what_was_off_before_stays_off() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "ofsb"})
        other = Offloads()
        other.finish(interface("ofsa"), generic=False)
        off = _active(interface("ofsb").ifindex)
        offloads = Offloads()
        assert offloads.finish(interface("ofsa"), generic=False).yes
        offloads.restore(interface("ofsa").ifindex)
        assert _active(interface("ofsb").ifindex) == off


@pytest.mark.parametrize("generic", [False, True])
def test_what_an_agent_that_died_has_turned_off_is_turned_on_again(generic: bool) -> None:
    with container() as inside, own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "eth0", "net_ns_fd": inside})
        peer = namespace.inside(inside, lambda: interface("eth0").ifindex)
        own, following = interface("ofsa"), Offloads()
        before = namespace.inside(inside, partial(_active, peer)), _active(own.ifindex)
        Offloads().finish(own, generic=generic)
        following.adopt(own, generic=generic)
        assert following.finish(own, generic=generic).yes
        following.restore(own.ifindex)
        assert (namespace.inside(inside, partial(_active, peer)), _active(own.ifindex)) == before


@pytest.mark.parametrize("crashes", [False, True])
def test_a_switch_at_xdp_leaves_the_hosts_offloads_as_they_were(tmp_path: Path, crashes: bool) -> None:
    """Which the kernel lets nobody turn on while XDP is there."""
    with Testbed.of(2) as bed:

        def active() -> list[set[str]]:
            ends = [(host.name, host.interface) for host in bed.hosts] + [(None, name) for name in bed.interfaces]
            return [bed.inside(place, lambda name=name: _active(interface(name).ifindex)) for place, name in ends]  # type: ignore[misc]

        before = active()
        if crashes:
            with running_switch(bed, tmp_path, "--hook", "xdp") as switch:
                switch.process.kill()
                switch.process.wait()
        with running_switch(bed, tmp_path, "--hook", "xdp"):
            assert not active()[0] & LEFT_TO_OTHERS
        assert active() == before


@pytest.mark.parametrize("header", [False, True])
def test_a_tap_with_virtio_headers_has_unfinished_frames(header: bool) -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofst", kind="tuntap", mode="tap", **({"ifr": {"vnet_hdr": 1}} if header else {}))
        finished = Offloads().finish(interface("ofst"), generic=False)
        assert finished.yes is not header, finished


def test_other_virtual_interfaces_have_unfinished_frames() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsd", kind="bridge")
        finished = Offloads().finish(interface("ofsd"), generic=True)
        assert (finished.yes, finished.reason) == (False, "what comes from a bridge may be unfinished")


def test_an_interface_that_is_gone_has_nothing_to_restore() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "ofsb"})
        offloads, own = Offloads(), interface("ofsa")
        assert offloads.finish(own, generic=False).yes
        ip.link("del", index=own.ifindex)
        offloads.restore(own.ifindex)
        assert not offloads.finish(own, generic=False).yes
