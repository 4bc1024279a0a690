"""Queues against a kernel: HTB on a veth of the test's own, counters, and what is somebody else's."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import own_namespace
import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance import ports
from appliance.datapath.transmit import Transmitter
from appliance.ports import PortError, PortFeature, QueueRates, ethtool

pytestmark = pytest.mark.root

SPEED = 10_000_000_000
GONE = 4_000_000


@pytest.fixture
def veth() -> Iterator[int]:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "ofsb"})
        for name in ("ofsa", "ofsb"):
            with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
                file.write("1")
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        yield ip.link_lookup(ifname="ofsa")[0]


def tc(words: str) -> str:
    return subprocess.run(["tc", *words.split()], capture_output=True, text=True, check=True).stdout


def test_queues_are_htb_classes_below_the_ports_speed(veth: int) -> None:
    ports.set_queues(veth, [QueueRates(0, 10_000_000, 20_000_000), QueueRates(7, 0, 100_000_000)], SPEED)
    classes = {line.split()[2]: line for line in tc("class show dev ofsa").splitlines()}
    assert sorted(classes) == ["1:1", "1:8", "1:fffe", "1:ffff"]
    assert "root" in classes["1:ffff"]
    assert "rate 10Gbit ceil 10Gbit" in classes["1:ffff"]
    assert "parent 1:ffff" in classes["1:1"]
    assert "rate 10Mbit ceil 20Mbit" in classes["1:1"]
    assert "rate 8Kbit ceil 100Mbit" in classes["1:8"]
    assert "rate 9990Mbit ceil 10Gbit" in classes["1:fffe"]


def test_others_take_their_place_and_none_takes_them_away(veth: int) -> None:
    ports.set_queues(veth, [QueueRates(0)], SPEED)
    ports.set_queues(veth, [QueueRates(3, 1_000_000)], SPEED)
    assert list(ports.queue_counters(veth, range(10))) == [3]
    ports.set_queues(veth, [], 0)
    assert "htb" not in tc("qdisc show dev ofsa")
    assert ports.queue_counters(veth, range(10)) == {}


def test_somebody_elses_qdisc_stays(veth: int) -> None:
    tc("qdisc add dev ofsa root handle 7: pfifo")
    with pytest.raises(PortError, match=r"^cannot be given queues: it has a pfifo qdisc \(7:\) of somebody else"):
        ports.set_queues(veth, [QueueRates(0)], SPEED)
    ports.set_queues(veth, [], 0)
    assert "pfifo 7:" in tc("qdisc show dev ofsa")
    tc("qdisc del dev ofsa root")
    tc("qdisc add dev ofsa root handle 1: htb default 10")
    ports.set_queues(veth, [], 0)
    assert "htb 1:" in tc("qdisc show dev ofsa")


def test_an_interface_that_is_gone_is_passed_over() -> None:
    ports.set_queues(GONE, [QueueRates(0)], SPEED)
    assert ports.queue_counters(GONE, [0]) == {}


def test_frames_are_counted_by_the_queue_that_they_were_sent_to(veth: int) -> None:
    ports.set_queues(veth, [QueueRates(0), QueueRates(7)], SPEED)
    transmitter = Transmitter()
    transmitter.open(1, socket.if_nametoindex("ofsa"))
    frame = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)
    for queue_id in (7, 7, None, 0, 7, 99):
        transmitter.send(1, frame, 0, queue_id)
    transmitter.close(1)
    counters = ports.queue_counters(veth, [0, 7])
    assert {queue_id: (item.tx_packets, item.tx_bytes, item.tx_errors) for queue_id, item in counters.items()} == {
        0: (1, 60, 0),
        7: (3, 180, 0),
    }
    assert "Sent 360 bytes 6 pkt" in tc("-s qdisc show dev ofsa"), "the rest went without a queue"


def test_a_link_that_cannot_advertise_says_so_and_one_that_can_negotiates() -> None:
    with own_namespace.entered():
        subprocess.run(["ip", "tuntap", "add", "dev", "ofst", "mode", "tap"], check=True)
        subprocess.run(["ip", "link", "add", "ofsa", "type", "veth", "peer", "name", "ofsb"], check=True)
        ethtool.set_link_modes("ofst", {"100baseT/Full": True}, True)
        assert ethtool.link_speed("ofst").curr & PortFeature.AUTONEG
        ethtool.set_link_modes("ofst", {"100baseT/Full": False}, False)
        assert not ethtool.link_speed("ofst").curr & PortFeature.AUTONEG
        with pytest.raises(NetlinkError):
            ethtool.set_link_modes("ofst", {"no such mode": True}, False)
        for name in ("ofsa", "gone"):
            with pytest.raises(PortError, match="cannot advertise other features"):
                ports.advertise(name, PortFeature.GB1_FD)
