"""What tests of the eBPF driver on real interfaces share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.wires import attached, new_datapath, packet_socket

from appliance.datapath.bpf import BpfDatapath
from appliance.lab.testbed import Testbed


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    """Its hosts say nothing by themselves in IPv6, which packets are counted beside."""
    with Testbed.of(3) as bed:
        for host in ("h1", "h2", "h3"):
            bed.inside(host, lambda: Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1"))
        yield bed


@pytest.fixture(scope="module")
def loaded() -> Iterator[BpfDatapath]:
    """Loading takes seconds: once."""
    datapath = new_datapath()
    yield datapath
    datapath.close()


@pytest.fixture
def datapath(bed: Testbed, loaded: BpfDatapath) -> Iterator[BpfDatapath]:
    with attached(bed, loaded) as datapath:
        yield datapath


@pytest.fixture
def wires(bed: Testbed) -> Iterator[list[socket.socket]]:
    """A raw socket on each host's interface."""
    sockets = [bed.inside(name, lambda name=name: packet_socket(bed[name].interface)) for name in ("h1", "h2", "h3")]
    yield sockets
    for wire in sockets:
        wire.close()
