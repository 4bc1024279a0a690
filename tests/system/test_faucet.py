"""Faucet and Gauge, in a virtual environment of their own, as the switch's two controllers: what a campus network asks of it."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from support.running_switch import RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.config import LabHost
from appliance.lab.testbed import Testbed

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(os.environ.get("OFSWITCH_FAUCET", ROOT / ".venv-faucet")) / "bin"

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

FAUCET_PORT, GAUGE_PORT = 6653, 6654
ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_AUXDATA = 8
TP_STATUS_VLAN_VALID = 1 << 4
AUXDATA = struct.Struct("=IIIHHHH")
"""struct tpacket_auxdata (linux/if_packet.h)."""
BROADCAST = b"\xff" * 6

CONFIG = """
vlans:
  office:
    vid: 100
    faucet_mac: "0e:00:00:00:01:00"
    faucet_vips: ["10.0.100.254/24", "fd00:100::fe/64"]
  laboratory:
    vid: 200
    faucet_mac: "0e:00:00:00:02:00"
    faucet_vips: ["10.0.200.254/24", "fd00:200::fe/64"]
routers:
  between: {vlans: [office, laboratory]}
acls:
  no-telnet:
    - rule: {dl_type: 0x800, nw_proto: 6, tcp_dst: 23, actions: {allow: 0}}
    - rule: {dl_type: 0x86dd, nw_proto: 6, tcp_dst: 23, actions: {allow: 0}}
    - rule: {actions: {allow: 1}}
dps:
  switch:
    dp_id: 0x1
    hardware: HARDWARE
    interfaces:
      1: {native_vlan: office, acls_in: [no-telnet]}
      2: {native_vlan: office}
      3: {tagged_vlans: [laboratory]}
      4: {native_vlan: laboratory}
      5: {mirror: 2, output_only: true}
      6: {native_vlan: office}
"""
GAUGE_CONFIG = """
faucet_configs: [FOLDER/faucet.yaml]
watchers:
  states: {dps: [switch], type: port_state, db: states}
  ports: {dps: [switch], type: port_stats, interval: 1, db: ports}
  flows: {dps: [switch], type: flow_table, interval: 1, db: flows}
  meters: {dps: [switch], type: meter_stats, interval: 1, db: meters}
dbs:
  states: {type: text, file: FOLDER/states.txt}
  ports: {type: text, file: FOLDER/ports.txt}
  flows: {type: text, path: FOLDER/flows}
  meters: {type: text, file: FOLDER/meters.txt}
"""


@dataclass
class Campus:
    bed: Testbed
    switch: RunningSwitch
    folder: Path

    def ping(self, source: str, address: str, *options: str) -> str:
        """What `ping`, with these options, said of one echo request."""
        command = ["ping", "-n", "-c", "1", "-W", "5", *options, address]
        return self.bed.run(command, host=source, environment={**os.environ, "LC_ALL": "C"}).stdout

    def reaches(self, source: str, address: str) -> bool:
        """In the end three echo requests one after the other are answered: Faucet learns while the first ones are on their way."""
        answered, deadline = 0, time.monotonic() + SECONDS
        while answered < 3 and time.monotonic() < deadline:
            answered = answered + 1 if " 0% packet loss" in self.ping(source, address) else 0
        return answered == 3

    def log(self) -> str:
        return (self.folder / "faucet.log").read_text() + (self.folder / "output.txt").read_text()


def host(name: str, net: int, number: int) -> LabHost:
    return LabHost(name=name, address4=f"10.0.{net}.{number}/24", address6=f"fd00:{net}::{number}/64")


HOSTS = (host("h1", 100, 1), host("h2", 100, 2), host("h3", 3, 3), host("h4", 200, 4), host("h5", 5, 5), host("h6", 6, 6))


def prepare_hosts(bed: Testbed) -> None:
    """Routes over the gateways."""

    def ip(name: str, command: str) -> None:
        done = bed.run(["ip", *command.split()], host=name)
        assert done.returncode == 0, done.stderr

    for name, own, other in (("h1", 100, 200), ("h2", 100, 200), ("h4", 200, 100)):
        ip(name, f"route add 10.0.{other}.0/24 via 10.0.{own}.254")
        ip(name, f"-6 route add fd00:{other}::/64 via fd00:{own}::fe")


def start_controllers(bed: Testbed, folder: Path, hardware: str) -> None:
    (folder / "faucet.yaml").write_text(CONFIG.replace("HARDWARE", f'"{hardware}"'))
    (folder / "gauge.yaml").write_text(GAUGE_CONFIG.replace("FOLDER", str(folder)))
    (folder / "flows").mkdir()
    environment = {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "FAUCET_CONFIG": str(folder / "faucet.yaml"),
        "FAUCET_LOG": str(folder / "faucet.log"),
        "FAUCET_EXCEPTION_LOG": str(folder / "faucet-exception.log"),
        "FAUCET_EVENT_SOCK": "",
        "FAUCET_PROMETHEUS_PORT": "9302",
        "GAUGE_CONFIG": str(folder / "gauge.yaml"),
        "GAUGE_LOG": str(folder / "gauge.log"),
        "GAUGE_EXCEPTION_LOG": str(folder / "gauge-exception.log"),
        "GAUGE_PROMETHEUS_PORT": "9303",
        "PYTHONWARNINGS": "ignore",
        **{name: value for name, value in os.environ.items() if name.startswith("OFSWITCH_")},
    }
    with (folder / "output.txt").open("wb") as out:
        for program, port in (("faucet", FAUCET_PORT), ("gauge", GAUGE_PORT)):
            flags = ["--ryu-ofp-listen-host", "127.0.0.1", "--ryu-ofp-tcp-listen-port", str(port)]
            bed.start([str(PROGRAMS / program), *flags], env=environment, stdout=out, stderr=out)


@pytest.fixture(scope="module", params=["Open vSwitch", "GenericTFM"])
def campus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campus]:
    """The parameter is what Faucet takes the switch for."""
    if not (PROGRAMS / "faucet").exists():
        reason = f"there is no {PROGRAMS}/faucet: make .venv-faucet"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("faucet")
    controllers = [flag for port in (FAUCET_PORT, GAUGE_PORT) for flag in ("--controller", f"tcp:127.0.0.1:{port}")]
    with Testbed(HOSTS, isolated=True) as bed:
        prepare_hosts(bed)
        start_controllers(bed, folder, request.param)
        with running_switch(bed, folder, "--datapath-id", "0x1", *controllers) as switch:
            campus = Campus(bed, switch, folder)
            until(lambda: switch.control.request("show")["flows"] > 20, "Faucet's flow entries")
            yield campus
            assert switch.control.request("show")["faults"] == 0, switch.log
    assert not (folder / "faucet-exception.log").exists() or not (folder / "faucet-exception.log").read_text()
    for error in ("OFPErrorMsg", "OFPET_", "Traceback"):
        assert error not in campus.log(), campus.log()


# ── VLANs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("source", "address"),
    [("h1", "10.0.100.2"), ("h2", "fd00:100::1")],
)
def test_hosts_of_a_vlan_reach_each_other(campus: Campus, source: str, address: str) -> None:
    assert campus.reaches(source, address)


def listen(bed: Testbed, name: str) -> socket.socket:
    """All that comes in on a host's interface."""

    def make() -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.bind((bed[name].interface, 0))
        opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        return opened

    return bed.inside(name, make)


def heard(opened: socket.socket, wanted: Callable[[bytes], bool], number: int = 1) -> list[bytes]:
    """The frames wanted that came in, with their tags: so many, and if more come soon after, those."""
    frames: list[bytes] = []
    deadline = time.monotonic() + SECONDS
    while True:
        opened.settimeout(0.3 if len(frames) >= number else max(0.01, deadline - time.monotonic()))
        try:
            frame, ancillary, _, (_, _, kind, *_) = opened.recvmsg(1 << 16, 1 << 8)
        except TimeoutError:
            return frames
        status, _, _, _, _, tci, tpid = AUXDATA.unpack(ancillary[0][2])
        if status & TP_STATUS_VLAN_VALID:
            frame = frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:]
        if kind != socket.PACKET_OUTGOING and wanted(frame):
            frames.append(frame)


def is_echo(frame: bytes, number: int) -> bool:
    """Of the test's own."""
    packet = Ether(frame)
    return ICMP in packet and packet[ICMP].id == number


def test_a_tagged_port_is_in_the_vlan_of_its_tag(campus: Campus) -> None:
    """h3 has no address in the laboratory but in the test's own frames."""
    bed = campus.bed
    wire = listen(bed, "h3")
    tagged = Ether(src=bed["h3"].mac, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=200)
    wire.send(bytes(tagged / ARP(hwsrc=bed["h3"].mac, psrc="10.0.200.3", pdst="10.0.200.4")))
    (answer,) = map(Ether, heard(wire, lambda frame: ARP in Ether(frame) and Ether(frame)[ARP].op == 2))
    assert (answer[Dot1Q].vlan, answer[ARP].hwsrc) == (200, bed["h4"].mac)
    tagged.dst = bed["h4"].mac
    wire.send(bytes(tagged / IP(src="10.0.200.3", dst="10.0.200.4") / ICMP(id=7, seq=9) / b"hello"))
    (reply,) = map(Ether, heard(wire, lambda frame: is_echo(frame, 7)))
    assert (reply[Dot1Q].vlan, reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (200, 0, 7, 9)
    wire.send(bytes(Ether(src=bed["h3"].mac, dst=bed["h4"].mac) / IP(src="10.0.200.3", dst="10.0.200.4") / ICMP(id=8)))
    assert not heard(wire, lambda frame: is_echo(frame, 8), 0), "without the tag it is in no VLAN"
    wire.close()


def test_a_broadcast_stays_in_its_vlan(campus: Campus) -> None:
    bed = campus.bed
    listeners = {name: listen(bed, name) for name in ("h2", "h3", "h4", "h6")}
    sender = listen(bed, "h1")
    mark = b"a broadcast of the office"
    sender.send(BROADCAST + bytes.fromhex(bed["h1"].mac.replace(":", "")) + b"\x88\xb5" + mark.ljust(46, b"\0"))
    expected = {"h2", "h6"}
    reached = {name for name, opened in listeners.items() if heard(opened, lambda frame: mark in frame, int(name in expected))}
    for opened in (sender, *listeners.values()):
        opened.close()
    assert reached == expected


# ── routing ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("source", "gateway", "address"),
    [
        ("h1", "10.0.100.254", "10.0.200.4"),
        ("h1", "fd00:100::fe", "fd00:200::4"),
        ("h4", "10.0.200.254", "10.0.100.2"),
        ("h4", "fd00:200::fe", "fd00:100::2"),
    ],
)
def test_vlans_are_routed_between(campus: Campus, source: str, gateway: str, address: str) -> None:
    assert campus.reaches(source, gateway)
    assert campus.reaches(source, address)
    assert until(lambda: re.findall(r"ttl=(\d+)", campus.ping(source, address)), "an answer") == ["63"]


@pytest.mark.parametrize("family", [4, 6])
def test_routed_tcp_is_the_fast_paths_work(campus: Campus, family: int) -> None:
    assert campus.reaches("h1", campus.bed["h4"].address(family))
    campus.switch.until_fast(lambda: campus.bed.transfer("h1", "h4", 100_000, family).ok)
    before = campus.switch.packets()
    result = campus.bed.transfer("h1", "h4", 50_000_000, family)
    after = campus.switch.packets()
    assert result.ok, result
    assert after["slow_path"] - before["slow_path"] <= 40, (before, after)
    assert after["tc"] - before["tc"] > 200


# ── access lists and mirrors ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("family", [4, 6])
def test_an_access_list_keeps_out_what_it_names_and_nothing_else(campus: Campus, family: int) -> None:
    assert campus.reaches("h1", campus.bed["h2"].address(family))
    assert not campus.bed.reaches("h1", "h2", 23, family)
    assert campus.bed.reaches("h1", "h2", 24, family, SECONDS)
    assert campus.bed.reaches("h2", "h1", 23, family, SECONDS), "the list is for what comes from h1"


def test_a_mirror_sees_both_ways(campus: Campus) -> None:
    assert campus.reaches("h1", "10.0.100.2")
    mirror = listen(campus.bed, "h5")
    size = 99
    for _ in range(3):
        campus.ping("h1", "10.0.100.2", "-s", str(size))
    h1, h2 = (bytes.fromhex(campus.bed[name].mac.replace(":", "")) for name in ("h1", "h2"))
    echoes = heard(mirror, lambda frame: b"\x08\x00\x45" in frame[:20] and size + 42 == len(frame), 6)
    mirror.close()
    assert sum(frame[:12] == h2 + h1 for frame in echoes) == 3, "requests, on their way out to h2"
    assert sum(frame[:12] == h1 + h2 for frame in echoes) == 3, "answers, on their way in from h2"


# ── Gauge ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_gauge_polls_the_same_switch(campus: Campus) -> None:
    until(lambda: [item["state"] for item in campus.switch.control.request("show")["controllers"]][:2] == ["connected"] * 2, "both")
    ports = campus.folder / "ports.txt"
    until(lambda: ports.exists() and len(ports.read_text().splitlines()) > 100, "port statistics")
    counted = re.findall(r"switch-2-packets-out\s+(\d+)", ports.read_text())
    assert int(counted[-1]) > 0
    until(lambda: list((campus.folder / "flows").iterdir()), "a dump of the flow tables")


# ── a host moves (last: h1 is elsewhere then) ──────────────────────────────────────────────────────────────────────────
def test_a_host_moves_to_another_port(campus: Campus) -> None:
    bed = campus.bed
    assert campus.reaches("h2", "10.0.100.1")
    bed.run(["ip", "link", "set", "eth0", "down"], host="h1")
    for command in (
        "link set eth0 down",
        f"link set eth0 address {bed['h1'].mac}",
        "link set eth0 up",
        "addr add 10.0.100.1/24 dev eth0",
        "addr add fd00:100::1/64 dev eth0 nodad",
    ):
        done = bed.run(["ip", *command.split()], host="h6")
        assert done.returncode == 0, done.stderr
    assert campus.reaches("h6", "10.0.100.2")
    assert campus.reaches("h2", "10.0.100.1")
    assert campus.reaches("h2", "fd00:100::1")
