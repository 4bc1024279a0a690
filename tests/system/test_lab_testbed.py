"""The testbed against a Linux bridge in the switch's place: it must see traffic that works, traffic that does not, and clean up."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from appliance.config import LabHost
from appliance.lab import namespace
from appliance.lab.testbed import LabError, Testbed
from appliance.lab.transfer import TransferResult

pytestmark = pytest.mark.root


def bridge(bed: Testbed) -> None:
    def build() -> None:
        with IPRoute() as ip:
            ip.link("add", ifname="ofsbr", kind="bridge")
            index = ip.link_lookup(ifname="ofsbr")[0]
            for name in bed.interfaces:
                ip.link("set", index=ip.link_lookup(ifname=name)[0], master=index)
            ip.link("set", index=index, state="up")

    bed.inside(None, build)


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed.of(2) as made:
        yield made
    assert made.leftovers() == []


@pytest.mark.parametrize("family", [4, 6])
def test_ping_and_transfer_through_a_bridge(bed: Testbed, family: int) -> None:
    bridge(bed)
    assert [(result.source, result.destination, result.ok) for result in bed.ping_all([family])] == [
        ("h1", "h2", True),
        ("h2", "h1", True),
    ]
    result = bed.transfer("h1", "h2", 5_000_001, family)
    assert result.ok
    assert result.received == 5_000_001
    assert result.bits_per_second > 0


def test_nothing_arrives_without_a_switch(bed: Testbed) -> None:
    result = bed.ping("h1", "h2", number=1, wait=0.3)
    assert (result.ok, result.sent, result.received, result.round_trip_ms) == (False, 1, 0, None)
    failed = bed.transfer("h1", "h2", 1000, timeout=0.5)
    assert not failed.ok
    assert failed.error.startswith("connecting:")


def test_addresses_are_usable_at_once_and_the_hosts_send_nothing_unasked(bed: Testbed) -> None:
    assert "tentative" not in bed.run(["ip", "-6", "address"], host="h1").stdout
    assert "02:00:00:00:00:02" in bed.run(["ip", "link", "show", "eth0"], host="h2").stdout
    assert bed.run(["ip", "-6", "address", "show", "sw-h1"]).stdout == ""


def test_the_callers_namespace_does_not_change(bed: Testbed) -> None:
    def names() -> list[str]:
        return [name for _, name in socket.if_nameindex()]

    before = names()
    assert "eth0" in bed.inside("h1", names)
    with pytest.raises(ZeroDivisionError):
        bed.inside("h1", lambda: 1 // 0)
    assert names() == before


def test_everything_goes_when_the_test_fails() -> None:
    bed = Testbed.of(2, isolated=False)
    processes: list[subprocess.Popen[bytes]] = []

    def fail() -> None:
        with bed:
            processes.append(bed.start(["sleep", "1000"], host="h1"))
            processes.append(bed.start(["sh", "-c", "trap '' TERM; echo deaf; sleep 1000"], stdout=subprocess.PIPE))
            assert processes[1].stdout is not None
            assert processes[1].stdout.readline() == b"deaf\n"
            assert len(bed.leftovers()) == 2 + 2 + 2
            bed.stop(processes[1], seconds=0.2)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert bed.leftovers() == []
    assert [process.returncode for process in processes] == [-15, -9]


def test_a_build_that_fails_half_way_leaves_nothing() -> None:
    hosts = [
        LabHost(name="h1", address4="10.0.0.1/24", address6="fd00::1/64"),
        LabHost(name="h2", address4="10.0.0.2/24", address6="fd00::2/64", mac="02:00:00:00:00:01"),
    ]
    bed = Testbed(hosts, isolated=True)
    namespace.create(bed["h2"].namespace)
    try:
        with pytest.raises(LabError, match="cannot build"), bed:
            pass
        assert bed.leftovers() == []
    finally:
        namespace.remove(bed["h2"].namespace)


@pytest.mark.parametrize(
    "changed",
    [{"received": 9}, {"sent": 9}, {"received_crc": 5}, {"error": "sending: reset"}, {"size": 11}],
)
def test_a_transfer_is_not_ok_if_anything_differs(changed: dict[str, int]) -> None:
    right = {"size": 10, "sent": 10, "received": 10, "sent_crc": 4, "received_crc": 4, "seconds": 1.0}
    assert TransferResult(**right).ok
    assert not TransferResult(**{**right, **changed}).ok
