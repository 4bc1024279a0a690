"""Which interfaces BIG TCP's frames may be sent to, and that what is raised for them is taken back, whoever raised it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import own_namespace
import pytest
from pyroute2 import IPRoute
from support.big_frames import needs_big_tcp

from appliance.lab import namespace
from appliance.ports import BIG_BYTES, BigTcp, Interface, PortError, find, frame_sizes
from appliance.ports.big_tcp import DEFAULT_BYTES, End

pytestmark = pytest.mark.root

CAP_SYS_ADMIN = 21
CAPABILITIES_VERSION = 0x20080522


@pytest.fixture(autouse=True)
def kernel() -> None:
    needs_big_tcp()


@contextmanager
def container() -> Iterator[str]:
    name = f"ofs-{os.getpid()}-big"
    namespace.create(name)
    try:
        yield name
    finally:
        namespace.remove(name)


@pytest.fixture
def pair() -> Iterator[tuple[Interface, str]]:
    """The end that is a port, and the namespace of the other, eth0; both are up."""
    with container() as inside, own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "eth0", "net_ns_fd": inside})
        ip.link("set", index=interface("ofsa").ifindex, state="up")
        namespace.inside(inside, lambda: change("eth0", state="up"))
        yield interface("ofsa"), inside


def interface(name: str) -> Interface:
    found = find(name)
    assert found is not None
    return found


def change(name: str, **what: Any) -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname=name)[0], **what)


def sizes(where: str | None, name: str) -> tuple[int | None, int | None]:
    def read() -> tuple[int | None, int | None]:
        found = frame_sizes.read(interface(name).ifindex)
        assert found is not None
        return found.gso, found.gro

    return namespace.inside(where, read)


def write(where: str | None, name: str, gso: int, gro: int = DEFAULT_BYTES) -> None:
    namespace.inside(where, lambda: frame_sizes.write(interface(name).ifindex, gso=gso, gro=gro))


BIG, DEFAULT = (BIG_BYTES, BIG_BYTES), (DEFAULT_BYTES, DEFAULT_BYTES)


# ── raising and taking back ────────────────────────────────────────────────────────────────────────────────────────────
def test_both_ends_are_raised_and_taken_back(pair: tuple[Interface, str]) -> None:
    own, inside = pair
    assert BigTcp().enlarge(own) == ""
    assert (sizes(None, "ofsa"), sizes(inside, "eth0")) == (BIG, BIG)
    # Another one: of an agent that knows nothing of the first.
    BigTcp().restore(own)
    assert (sizes(None, "ofsa"), sizes(inside, "eth0")) == (DEFAULT, DEFAULT)


def test_the_other_end_may_be_in_the_same_namespace() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "ofsb"})
        big = BigTcp()
        assert big.ends(interface("ofsa")) == [End(None, interface(name).ifindex) for name in ("ofsa", "ofsb")]
        assert big.enlarge(interface("ofsa")) == ""
        assert (sizes(None, "ofsa"), sizes(None, "ofsb")) == (BIG, BIG)
        big.restore(interface("ofsa"))
        assert (sizes(None, "ofsa"), sizes(None, "ofsb")) == (DEFAULT, DEFAULT)


def test_what_somebody_else_has_set_stays(pair: tuple[Interface, str]) -> None:
    own, inside = pair
    big = BigTcp()
    write(None, "ofsa", 300_000)
    write(inside, "eth0", 40_000, 50_000)
    assert big.hindrance(own, ()) == ""
    assert big.enlarge(own) == "somebody has set its other end's gso_ipv4_max_size to 40000"
    assert (sizes(None, "ofsa"), sizes(inside, "eth0")) == ((300_000, BIG_BYTES), (40_000, 50_000))
    big.restore(own)
    assert (sizes(None, "ofsa"), sizes(inside, "eth0")) == ((300_000, DEFAULT_BYTES), (40_000, 50_000))


def drop(capability: int) -> None:
    """From this thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = struct.pack("=Ii", CAPABILITIES_VERSION, 0), ctypes.create_string_buffer(24)
    assert libc.capget(head, data) == 0
    effective = struct.unpack_from("=I", data)[0]
    struct.pack_into("=I", data, 0, effective & ~(1 << capability))
    assert libc.capset(head, data) == 0


def test_an_other_end_out_of_reach_stays_as_it_is_and_its_port_says_so() -> None:
    """What a container may do that has been given the four capabilities."""
    with container() as inside, container_of_the_port() as outside, ExitStack() as stack:
        namespace.inside(outside, lambda: make_pair(inside))

        def unable() -> tuple[str, str]:
            own, big = interface("ofsa"), BigTcp()
            drop(CAP_SYS_ADMIN)
            return big.hindrance(own, ()), big.enlarge(own)

        hindrance, lacks = namespace.inside(outside, unable)
        assert hindrance == ""
        assert lacks.startswith("its other end, which sends none, is in a namespace out of reach")
        assert (sizes(outside, "ofsa"), sizes(inside, "eth0")) == (BIG, DEFAULT)
        stack.callback(namespace.inside, outside, lambda: BigTcp().restore(interface("ofsa")))


@contextmanager
def container_of_the_port() -> Iterator[str]:
    name = f"ofs-{os.getpid()}-port"
    namespace.create(name)
    try:
        yield name
    finally:
        namespace.remove(name)


def make_pair(inside: str) -> None:
    with IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "eth0", "net_ns_fd": inside})


def test_an_interface_that_is_gone_is_passed_over() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "ofsb"})
        own, big = interface("ofsa"), BigTcp()
        ip.link("del", index=own.ifindex)
        assert big.hindrance(own, ()) == ""
        assert big.enlarge(own) == ""
        big.restore(own)


def test_a_size_that_the_device_cannot_have_is_an_error() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofst", kind="tuntap", mode="tap")
        with pytest.raises(PortError, match="cannot set how long its frames may be: Invalid argument"):
            BigTcp().enlarge(interface("ofst"))
        assert sizes(None, "ofst") == DEFAULT


# ── what hinders ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_veth_between_namespaces_takes_them(pair: tuple[Interface, str]) -> None:
    assert BigTcp().hindrance(pair[0], ()) == ""


def test_what_may_lead_on_takes_none() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofst", kind="tuntap", mode="tap")
        ip.link("add", ifname="ofsv", kind="vxlan", vxlan_collect_metadata=1, vxlan_port=4789)
        for name, kind in (("ofst", "tun"), ("ofsv", "vxlan")):
            assert BigTcp().hindrance(interface(name), ()) == f"a {kind} may lead to where frames are cut"


def test_a_port_that_somebody_has_narrowed(pair: tuple[Interface, str]) -> None:
    write(None, "ofsa", 100_000)
    assert BigTcp().hindrance(pair[0], ()) == "somebody has set its gso_ipv4_max_size to 100000"


def test_an_other_end_in_a_bridge_or_a_switch(pair: tuple[Interface, str]) -> None:
    own, inside = pair
    told = "its other end is part of a bridge or switch"

    def in_bridge() -> None:
        with IPRoute() as ip:
            ip.link("add", ifname="br", kind="bridge")
            change("eth0", master=ip.link_lookup(ifname="br")[0])

    namespace.inside(inside, in_bridge)
    assert BigTcp().hindrance(own, ()) == told
    namespace.inside(inside, lambda: change("eth0", master=0))
    assert BigTcp().hindrance(own, ()) == ""
    promiscuous = 1 << 8
    namespace.inside(inside, lambda: change("eth0", flags=promiscuous, change=promiscuous))
    assert BigTcp().hindrance(own, ()) == told, "as switches make their ports"


def test_a_router_behind_it_with_a_narrow_way_on(pair: tuple[Interface, str]) -> None:
    own, inside = pair
    big = BigTcp()

    def another(name: str) -> int:
        with IPRoute() as ip:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}x"})
            for each in (name, f"{name}x"):
                change(each, state="up")
        return interface(name).ifindex

    uplink = namespace.inside(inside, lambda: another("up0"))
    assert big.hindrance(own, ()) == "", "it does not forward"
    namespace.inside(inside, lambda: namespace.write_sysctl("net/ipv4/ip_forward", 1))
    told = big.hindrance(own, ())
    assert told in [f"behind its other end packets are forwarded, and {name} takes no such frames" for name in ("up0", "up0x")]
    # Interfaces of our own ports are raised with it, and one that somebody has raised is wide enough.
    write(inside, "up0x", BIG_BYTES)
    other = big.ends(own)[1]
    assert big.hindrance(own, (End(other.namespace, uplink),)) == ""
    namespace.inside(inside, lambda: change("up0", state="down"))
    assert big.hindrance(own, ()) == ""
    namespace.inside(inside, lambda: (change("up0", state="up"), change("eth0", state="down")))
    assert big.hindrance(own, ()) == "", "nothing goes that way"
