"""BIG TCP frames, longer than IPv4's header can say: through the fast path they are what Python makes of them, they come up to the
slow path whole, and leave it whole, on real veth pairs (a test run has room for a page).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from support.big_frames import GSO_SIZE, LONGEST, SOURCE, Wire, big_frame, needs_big_tcp
from support.waiting import SECONDS, readable

from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathPort
from appliance.datapath.loader import Sizes
from appliance.lab.testbed import Testbed
from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME, ETH_SRC, IN_PORT
from appliance.model.megaflow import DatapathAction, DecTtl, Flood, Forward, Megaflow, PopTag, PushMpls, PushTag, Upcall
from appliance.model.ports import Hook
from appliance.packet.execute import execute
from appliance.packet.parse import parse
from appliance.ports import frame_sizes

pytestmark = pytest.mark.root

SIZES = (65_536 + 14, 185_000, 3 * 65536 + 256, LONGEST - 1)
"""From the first that has no length in its header; the last that its class of the ring buffer takes; the kernel's longest."""
OURS = IN_PORT.mask | ETH_SRC.mask
FROM_H1 = ETH_SRC.put(IN_PORT.put(0, 1), int.from_bytes(SOURCE, "big"))


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    needs_big_tcp()
    with Testbed.of(3) as bed:
        for host in bed.hosts:
            for where, name in ((None, host.switch_interface), (host.name, host.interface)):
                bed.inside(where, lambda name=name: frame_sizes.write(socket.if_nametoindex(name), gso=LONGEST, gro=LONGEST))  # type: ignore[misc]
        yield bed


@pytest.fixture(scope="module")
def datapath(bed: Testbed) -> Iterator[BpfDatapath]:
    datapath = BpfDatapath(Sizes(megaflows=64))
    for number, name in enumerate(bed.interfaces, 1):
        bed.inside(None, lambda n=number, name=name: datapath.attach(DatapathPort(n, name, socket.if_nametoindex(name), Hook.TC)))
    yield datapath
    bed.inside(None, datapath.close)


@pytest.fixture(autouse=True)
def clean(datapath: BpfDatapath) -> Iterator[None]:
    yield
    datapath.remove(range(1, 100))
    datapath.upcalls(100_000)


@pytest.fixture
def wires(bed: Testbed) -> Iterator[list[Wire]]:
    """One at each host."""
    made = [bed.inside(host.name, lambda host=host: Wire(host.interface)) for host in bed.hosts]  # type: ignore[misc]
    yield made
    for each in made:
        each.close()


def upcall(datapath: BpfDatapath) -> Upcall:
    """The next of our own."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        readable(datapath, 0.1)
        for found in datapath.upcalls(1):
            if found.frame[6:12] == SOURCE:
                return found
    pytest.fail("nothing came up")


@pytest.mark.parametrize("size", SIZES)
def test_a_miss_comes_up_whole_and_leaves_whole(datapath: BpfDatapath, wires: list[Wire], size: int) -> None:
    sent = big_frame(size)
    before = datapath.port_counters()[1].rx_bytes
    wires[0].send(sent)
    found = upcall(datapath)
    assert found.frame == sent
    assert (found.gso_size, found.key) == (GSO_SIZE, parse(sent, 1).key)
    assert datapath.port_counters()[1].rx_bytes - before >= size
    assert datapath.send(2, found.frame, found.gso_size)
    assert next(wires[1].receive(SECONDS)) == (sent, GSO_SIZE)


def test_several_wait_in_the_queue(datapath: BpfDatapath, wires: list[Wire]) -> None:
    sent = [big_frame(185_000, sport=number) for number in range(1, 9)]
    for frame in sent:
        wires[0].send(frame)
    assert [upcall(datapath).frame for _ in sent] == sent


TCP = [SetField(BY_NAME["tcp_src"], 4000), SetField(BY_NAME["tcp_dst"], 80)]
NAT = [
    SetField(BY_NAME["ipv4_src"], 0xC0000201),
    SetField(BY_NAME["ipv4_dst"], 0xC6336402),
    *TCP,
    SetField(BY_NAME["eth_dst"], 0x020000000009),
]
ACTIONS: dict[str, list[DatapathAction]] = {
    "as it is": [Forward(2)],
    "addresses and ports": [*NAT, Forward(2)],
    "TTL": [DecTtl(), Forward(2)],
    "TOS": [SetField(BY_NAME["ip_dscp"], 10), Forward(2)],
    "a tag pushed": [PushTag(0x8100, 5), Forward(2)],
    "two tags pushed, one popped": [PushTag(0x88A8, 6), PushTag(0x8100, 7), PopTag(), Forward(2)],
    "two outputs, changed between": [*TCP, Forward(2), *NAT, Forward(2)],
    "a label pushed": [PushMpls(0x8847), SetField(BY_NAME["mpls_label"], 77), Forward(2)],
    "flood, and once more": [Flood(), *NAT, Forward(2)],
}


@pytest.mark.parametrize("size", [65_550, 185_000])
@pytest.mark.parametrize("name", ACTIONS)
def test_actions_do_what_python_does(datapath: BpfDatapath, wires: list[Wire], name: str, size: int) -> None:
    sent = big_frame(size)
    actions = tuple(ACTIONS[name])
    assert datapath.install(Megaflow(1, FROM_H1, OURS, actions))
    datapath.caught_up([1])
    # The first one goes by the subtables, the second by the cache.
    for _ in range(2):
        wires[0].send(sent)
        arrived = wires[1].receive(SECONDS)
        for emission in execute(sent, actions, 1, True):
            assert next(arrived) == (emission.frame, GSO_SIZE)
    statistics = datapath.statistics([1])[1]
    assert (statistics.packets, statistics.bytes) == (2, 2 * size)
