"""Tunnels to others: a device of the kernel's own, Open vSwitch in userspace; other kinds, IPv6 between the ends, every option."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import pytest
from support.overlay import UNDERLAY_INTERFACE, Overlay, Sites, ip, tunnel, underlay4, underlay6
from support.running_switch import RunningSwitch, running_switch
from support.waiting import until

from appliance.lab.testbed import Testbed
from appliance.lab.transfer import transfer
from appliance.ports import PortError
from appliance.ports.tunnel import TunnelDevice, TunnelKind, make_tunnel_device

pytestmark = pytest.mark.root

FLOWS = ("in_port=1,actions=output:2", "in_port=2,actions=output:1")
BULK = 20_000_000
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")


def lacks(overlay: Overlay, kind: TunnelKind) -> str:
    """Why the kernel has no such devices; empty if it has."""
    try:
        overlay.beds[0].inside(None, lambda: make_tunnel_device(TunnelDevice(kind, 0 if kind == "gre" else 9999, "probe")))
    except PortError as error:
        if "this kernel has no" in str(error):
            return str(error)
        raise
    name = "gre_of" if kind == "gre" else f"{kind}_of_9999"
    ip("link", "del", name, inside=overlay.beds[0].switch_namespace)
    return ""


def check_traffic(overlay: Overlay, families: tuple[int, ...] = (4, 6)) -> None:
    for family in families:
        assert overlay.ping("a1", "b1", family) == 3
        for source, destination in (("a1", "b1"), ("b1", "a1")):
            result = overlay.transfer(source, destination, BULK, family)
            assert result.ok, result
    assert overlay.ping("a1", "b1", 4, "-s", "4000") == 3, "in fragments"


def join(switches: list[RunningSwitch], port: int) -> None:
    """The hosts, by that port of each switch."""
    for switch in switches:
        switch.ofctl("del-flows")
        switch.add_flows(f"in_port=1,actions=output:{port}", f"in_port={port},actions=output:1")


# ── our own at the other end ───────────────────────────────────────────────────────────────────────────────────────────
PEERS: dict[int, tuple[TunnelKind, dict[str, object]]] = {
    2: ("vxlan", {"dst_port": 8472, "csum": True}),
    3: ("geneve", {"key": 5}),
    4: ("geneve", {"csum": True, "dst_port": 7000}),
    5: ("gre", {}),
    6: ("gre", {"key": 0xFFFFFFFE}),
}
"""By port number: what the two switches have between them."""
IPV6_PORT = 8
OPTIONS: dict[int, dict[str, object]] = {
    11: {},
    12: {"ttl": 5, "tos": 0x20, "df_default": False, "csum": True},
    13: {"ttl": "inherit", "tos": "inherit"},
}
"""By port number: those of tunnels with nobody at the other end."""


class Pair(Sites):
    lacking: dict[str, str]
    """Kinds that the kernel has not, and in what words."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two switches with all of these ports, as far as the kernel has their kinds."""
    folder = tmp_path_factory.mktemp("pair")
    with Pair(2) as sites, ExitStack() as stack:
        sites.lacking = {kind: reason for kind in get_args(TunnelKind) if (reason := lacks(sites, kind))}
        sites.switches = []
        for site in (1, 2):
            remote, remote6 = underlay4(3 - site), underlay6(3 - site)
            peers = {number: peer for number, peer in PEERS.items() if peer[0] not in sites.lacking}
            ports = [tunnel(f"peer{n}", n, kind, remote_ip=remote, **options) for n, (kind, options) in peers.items()]
            # By source address and key too, so that all that a port may fix is compared.
            ports.append(tunnel("six", IPV6_PORT, remote_ip=remote6, local_ip=underlay6(site), key=6))
            ports += [tunnel("wrong", 9, remote_ip="2001:db8::99", key=6), tunnel("any", 10, key="flow")]
            if site == 1:
                ports += [tunnel(f"out{n}", n, remote_ip=remote, dst_port=5000 + n, **options) for n, options in OPTIONS.items()]
            sites.switches.append(stack.enter_context(sites.switch(site, folder, "".join(ports))))
        yield sites
        assert [switch.control.request("show")["faults"] for switch in sites.switches] == [0, 0]


@pytest.mark.parametrize("number", PEERS)
def test_every_kind(pair: Pair, number: int) -> None:
    if reason := pair.lacking.get(PEERS[number][0]):
        pytest.skip(reason)
    pair.clear()
    join(pair.switches, number)
    before = [(switch.packets(), pair.drops(site)) for site, switch in enumerate(pair.switches, 1)]
    check_traffic(pair)
    for site, (packets, drops) in enumerate(before, 1):
        now = pair[site].packets()
        assert now["tc"] - packets["tc"] > now["slow_path"] - packets["slow_path"]
        assert pair.drops(site) == drops


def test_ends_of_ipv6(pair: Pair) -> None:
    pair.clear()
    join(pair.switches, IPV6_PORT)
    check_traffic(pair)


# ── options ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("number", "tos", "flags", "ttl", "checksummed"),
    [(11, 0, 0x40, 64, False), (12, 0x20, 0, 5, True), (13, 0x48, 0x40, 33, False)],
)
def test_options_are_in_the_outer_header(pair: Pair, number: int, tos: int, flags: int, ttl: int, checksummed: bool) -> None:
    """Of the slow path's packets as of the fast path's: the first packet of a megaflow goes the one way, the others the other."""
    pair.clear()
    join(pair.switches[:1], number)
    a1 = pair.beds[0]["a1"].namespace
    ip("neigh", "replace", "10.0.0.21", "lladdr", "02:00:00:00:02:01", "dev", "eth0", inside=a1)
    before, sent = pair[1].packets(), 0

    def both_ways() -> bool:
        nonlocal sent
        sent += 1
        pair.ping("a1", "b1", 4, "-t", "33", "-Q", "0x48", number=1, wait=0.1)
        now = pair[1].packets()
        return all(now[tier] > before[tier] for tier in ("slow_path", "tc"))

    with pair.seen(2) as seen:
        until(both_ways, "packets by the slow path and by the fast path")
        until(lambda: len([packet for packet in seen() if packet[48:50] == b"\x08\x00"]) == sent, "all echo requests")
        echoes = [packet for packet in seen() if packet[48:50] == b"\x08\x00"]
    for echo in echoes:
        assert (echo[1], echo[6] & 0x60, echo[8], echo[26:28] != b"\0\0") == (tos, flags, ttl, checksummed)


def test_a_frame_that_does_not_fit_goes_in_pieces_or_not_at_all(tmp_path: Path) -> None:
    with Overlay(2, mtu=1500, host_mtu=1500) as overlay, ExitStack() as stack:
        switches = []
        for site in (1, 2):
            ports = tunnel("pieces", 2, remote_ip=underlay4(3 - site), df_default=False)
            ports += tunnel("whole", 3, remote_ip=underlay4(3 - site), df_default=True, dst_port=4790)
            switches.append(stack.enter_context(overlay.switch(site, tmp_path, ports)))
        for port, answers in ((2, 3), (3, 0)):
            join(switches, port)
            assert overlay.ping("a1", "b1", 4, "-s", "1400", "-M", "do") == 3
            assert overlay.ping("a1", "b1", 4, "-s", "1472", "-M", "do", wait=5.0 if answers else 0.3) == answers


def test_two_machines_that_learn_by_themselves(tmp_path: Path) -> None:
    """As in configs/overlay.yaml, and with the machines themselves on the network: OFPP_LOCAL at both ends."""
    with Overlay(2) as overlay, ExitStack() as stack:
        insides = []
        for site, bed in enumerate(overlay.beds, 1):
            lines = [f"name: site{site}", f"datapath_id: {site}", "fail_mode: standalone", f"local: own{site}", "ports:"]
            lines += [f"  - {bed.interfaces[0]}", tunnel("peer", 2, remote_ip=underlay4(3 - site), key=42)]
            path = tmp_path / f"site{site}.yaml"
            path.write_text("\n".join(lines))
            stack.enter_context(running_switch(bed, tmp_path, str(path), name=f"site{site}", ports=()))
            inside = bed.switch_namespace
            assert inside is not None
            ip("addr", "add", f"10.0.0.{200 + site}/24", "dev", f"own{site}", inside=inside)
            ip("link", "set", f"own{site}", "mtu", "1400", "up", inside=inside)
            insides.append(inside)
        check_traffic(overlay)
        for source, address in (
            (insides[0], "10.0.0.202"),
            (insides[1], "10.0.0.201"),
            (overlay.beds[0]["a1"].namespace, "10.0.0.202"),
        ):
            result = transfer(source, insides[0] if address.endswith("201") else insides[1], address, BULK, 60.0)
            assert result.ok, (source, result)


# ── others at the other end ────────────────────────────────────────────────────────────────────────────────────────────
def test_a_vxlan_device_of_the_kernels(tmp_path: Path) -> None:
    """Bridged with the host there: no flow-based mode, no eBPF, and a checksum over every outer packet."""
    with Overlay(2) as overlay:
        inside = overlay.beds[1].switch_namespace
        ip("link", "add", "br0", "mtu", "1400", "type", "bridge", inside=inside)
        ip(
            *("link", "add", "vx0", "type", "vxlan", "id", "77", "dstport", "4789", "udpcsum"),
            *("remote", underlay4(1), "local", underlay4(2), "dev", UNDERLAY_INTERFACE),
            inside=inside,
        )
        for port in ("vx0", overlay.beds[1].interfaces[0]):
            ip("link", "set", port, "master", "br0", "up", inside=inside)
        ip("link", "set", "br0", "up", inside=inside)
        with overlay.switch(1, tmp_path, tunnel("peer", 2, remote_ip=underlay4(2), key=77)) as switch:
            switch.add_flows(*FLOWS)
            check_traffic(overlay)


class OpenVSwitch:
    """One in userspace, with its own database and sockets, in a site's namespace. Bridge ``over`` has the host and the tunnel,
    bridge ``phy`` the underlay's interface and address.
    """

    def __init__(self, bed: Testbed, folder: Path) -> None:
        self._bed = bed
        self._folder = folder
        self._environment = {
            **os.environ,
            **{name: str(folder) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")},
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        database, remote = self._folder / "conf.db", f"unix:{self._folder}/db.sock"
        self._run("ovsdb-tool", "create", str(database), str(SCHEMA))
        self._start("ovsdb-server", str(database), f"--remote=p{remote}", "--pidfile", "-vconsole:off")
        self._wait_for("db.sock")
        self.vsctl("--no-wait", "init")
        self._start("ovs-vswitchd", remote, "--pidfile", "-vconsole:off")
        self._wait_for("ovs-vswitchd.pid")

    def vsctl(self, *words: str) -> str:
        return self._run("ovs-vsctl", "--timeout=60", f"--db=unix:{self._folder}/db.sock", *words)

    def ofctl(self, *words: str) -> str:
        return self._run("ovs-ofctl", "-O", "OpenFlow13", *words)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, *argv: str) -> str:
        result = self._bed.run(argv, environment=self._environment)
        assert result.returncode == 0, f"{argv}: {result.stdout}{result.stderr}"
        return result.stdout

    def _start(self, *argv: str) -> None:
        options = {"env": self._environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(self._bed.start(argv, **options))

    def _wait_for(self, name: str) -> None:
        until((self._folder / name).exists, name)


@pytest.mark.skipif(shutil.which("ovs-vswitchd") is None or not SCHEMA.exists(), reason="apt-get install openvswitch-switch")
@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="there is no /dev/net/tun")
@pytest.mark.parametrize("kind", ["vxlan", "geneve", "gre"])
def test_open_vswitch_at_the_other_end(tmp_path: Path, kind: TunnelKind) -> None:
    """The same options by the same names there. Its userspace cuts no large frames, so hosts behind it must not send such."""
    with Overlay(2) as overlay:
        if reason := lacks(overlay, kind):
            pytest.skip(reason)
        bed = overlay.beds[1]
        for inside, interface in ((bed["b1"].namespace, "eth0"), (overlay.beds[0]["a1"].namespace, "eth0")):
            offloads = ("tso", "off", "gso", "off", "gro", "off", "tx", "off")
            subprocess.run(["ip", "netns", "exec", inside, "ethtool", "-K", interface, *offloads], check=True, capture_output=True)
        folder = tmp_path / "ovs"
        folder.mkdir()
        other = OpenVSwitch(bed, folder)
        try:
            other.start()
            netdev = ("datapath_type=netdev", "fail_mode=secure")
            other.vsctl("add-br", "phy", "--", "set", "bridge", "phy", "datapath_type=netdev", "--", "add-port", "phy", "under")
            other.vsctl("add-br", "over", "--", "set", "bridge", "over", *netdev)
            options = (f"options:remote_ip={underlay4(1)}", "options:key=9")
            other.vsctl("add-port", "over", bed.interfaces[0], "--", "set", "interface", bed.interfaces[0], "ofport_request=1")
            other.vsctl("add-port", "over", "tun", "--", "set", "interface", "tun", f"type={kind}", "ofport_request=2", *options)
            ip("addr", "flush", "dev", UNDERLAY_INTERFACE, inside=bed.switch_namespace)
            ip("addr", "add", f"{underlay4(2)}/24", "dev", "phy", inside=bed.switch_namespace)
            ip("link", "set", "phy", "up", inside=bed.switch_namespace)
            for flow in FLOWS:
                other.ofctl("add-flow", "over", flow)
            ours = tunnel("peer", 2, kind, remote_ip=underlay4(2), key=9)
            with overlay.switch(1, tmp_path, ours) as switch:
                switch.add_flows(*FLOWS)
                until(lambda: overlay.ping("a1", "b1", number=1, wait=0.5), "an answer through Open vSwitch")
                for family in (4, 6):
                    assert overlay.ping("a1", "b1", family) == 3
                for source, destination in (("a1", "b1"), ("b1", "a1")):
                    result = overlay.transfer(source, destination, 5_000_000)
                    assert result.ok, result
        finally:
            other.stop()
