"""TCP between two hosts: throughput by iperf3, the time of a request and its response, and what the way of a datagram costs.

The whole product (at TC, as on any veth), the Linux bridge and Open vSwitch (netdev), each between two namespaces of its own, each
switching as L2 learning does; a TC program that only redirects, straight to the other end; and, as the limit of what any switch can
do for frames of 64 KB, a veth pair between the hosts and no switch. Where the kernel has BIG TCP, the product lets its hosts send
frames of 185 KB; so there is a second Linux bridge, for which somebody has done the same. Open vSwitch's userspace datapath needs
help with a local stack's segmentation offload: it gets userspace-tso-enable; without it, TCP would not go through at all unless the
hosts gave up checksum offload. Sender and receiver have a CPU each (if there are two), so that the scheduler's choice is not
measured too.

The hosts' congestion control is Reno, which every kernel has: where BBR is the default, the timer by which it paces is what is
measured, at a quarter of the throughput.

Invariant: a transfer of nothing is an error, not a figure.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import kernel
import openvswitch
from kernel import BenchError, Kernel
from openvswitch import OpenVSwitch
from product import Product
from pyroute2 import IPRoute
from results import Aim, Row, in_turn

from appliance.datapath import netlink
from appliance.lab import namespace
from appliance.lab.testbed import Testbed
from appliance.ports import BigTcp, PortError, find

GROUP = "TCP"
OURS, MINIMAL, BRIDGE, OVS = "ofswitch, TC", "minimal TC redirect_peer", "Linux bridge", "Open vSwitch, netdev"
BIG_BRIDGE, PAIR = "Linux bridge, BIG TCP too", "no switch, one veth pair"
REFERENCES = ((MINIMAL, "minimal"), (BRIDGE, "bridge"), (BIG_BRIDGE, "bridge_big"), (OVS, "ovs"), (PAIR, "pair"))
WAYS = ((MINIMAL, "minimal"), (BRIDGE, "bridge"))
"""Of which the sender's CPU does all the work."""
STREAMS = (1, 8)
READY_SECONDS = 60.0
ASK = str(Path(__file__).with_name("ask.py"))


class Tcp:
    def __init__(self, programs: Kernel, *, seconds: int, rounds: int, requests: int, datagrams: int) -> None:
        self._programs = programs
        self._seconds = seconds
        self._rounds = rounds
        self._requests = requests
        self._datagrams = datagrams
        cpus = sorted(os.sched_getaffinity(0))
        self._cpus = f"{cpus[0]},{cpus[-1]}"
        """Of sender and receiver."""
        real_time = ["chrt", "--rr", "1"]
        allowed = shutil.which("chrt") and not subprocess.run([*real_time, "true"], capture_output=True, check=False).returncode
        self._first = real_time if allowed else []
        """Before other programs on these CPUs, whose share would else be measured; not where a program forwards."""

    def rows(self) -> Generator[Row, None, None]:
        no_ovs, no_iperf = openvswitch.why_not(), "" if shutil.which("iperf3") else "not installed: iperf3"
        with ExitStack() as stack:
            beds = {OURS: self._ours(stack), MINIMAL: self._minimal(stack), BRIDGE: self._bridge(stack), PAIR: self._pair(stack)}
            no_big = self._add_big_bridge(stack, beds)
            if not no_ovs:
                beds[OVS] = self._ovs(stack)
            missing = {OVS: f"{OVS}: {no_ovs}" if no_ovs else "", BIG_BRIDGE: no_big}
            for bed in beds.values():
                for host in bed.hosts:
                    bed.inside(host.name, lambda: namespace.write_sysctl("net/ipv4/tcp_congestion_control", "reno"))
                if not bed.ping("h1", "h2").ok:
                    raise BenchError("a ping between two hosts did not come back")
            for streams in STREAMS:
                samples: dict[str, list[float]] = {name: [] for name in beds}
                if not no_iperf:
                    samples = in_turn(
                        {name: lambda name=name: self._throughput(beds[name], streams, name) for name in beds},  # type: ignore[misc] # noqa: B023
                        self._rounds,
                    )
                text = f"{OURS}, {streams} stream{'s' if streams > 1 else ''}"
                for reference, key in REFERENCES:
                    aim = Aim(">=", 1.15) if reference == BRIDGE else None
                    note = no_iperf or missing.get(reference, "")
                    yield Row(
                        f"tcp.{key}.{streams}", GROUP, text, "Gb/s", samples[OURS], reference, samples.get(reference, []), aim, note
                    )
            samples = in_turn(
                {name: lambda bed=bed: self._round_trip(bed) for name, bed in beds.items()},  # type: ignore[misc]
                self._rounds,
            )
            for reference, key in REFERENCES:
                aim = Aim("<=", 1) if reference == BRIDGE else None
                note = missing.get(reference, "")
                yield Row(
                    f"tcp.{key}.rtt",
                    GROUP,
                    f"{OURS}, request and response",
                    "µs",
                    samples[OURS],
                    reference,
                    samples.get(reference, []),
                    aim,
                    note,
                )
            samples = in_turn(
                {name: lambda bed=beds[name]: self._datagram(bed) for name in (OURS, MINIMAL, BRIDGE, PAIR)},  # type: ignore[misc]
                self._rounds,
            )
            for reference, key in WAYS:
                ours, theirs = (
                    [way - none for way, none in zip(samples[name], samples[PAIR], strict=True)] for name in (OURS, reference)
                )
                yield Row(f"tcp.{key}.way", GROUP, f"{OURS}, the way of a datagram", "ns", ours, reference, theirs)

    # ── contenders ─────────────────────────────────────────────────────────────────────────────────────────────────────
    @staticmethod
    def _ours(stack: ExitStack) -> Testbed:
        bed = stack.enter_context(Testbed.of(2))
        product = stack.enter_context(Product(bed))
        product.add_flows(["priority=0,actions=NORMAL"])
        return bed

    def _minimal(self, stack: ExitStack) -> Testbed:
        """Each port's packets to the other's other end: as fast as any TC program can be."""
        bed = stack.enter_context(Testbed.of(2))
        program = self._programs.program("tc_minimal_peer")

        def attach() -> None:
            one, other = (socket.if_nametoindex(name) for name in bed.interfaces)
            for inside, out in ((one, other), (other, one)):
                self._programs.write("minimal", kernel.word(inside), kernel.word(0) + kernel.word(out))
                netlink.attach_tc(inside, program)

        bed.inside(None, attach)
        return bed

    @staticmethod
    def _bridge(stack: ExitStack) -> Testbed:
        bed = stack.enter_context(Testbed.of(2))

        def make() -> None:
            namespace.write_sysctl("net/bridge/bridge-nf-call-iptables", 0)
            namespace.write_sysctl("net/bridge/bridge-nf-call-ip6tables", 0)
            with IPRoute() as ip:
                ip.link("add", ifname="bridge", kind="bridge")
                index = ip.link_lookup(ifname="bridge")[0]
                ip.link("set", index=index, state="up")
                for name in bed.interfaces:
                    ip.link("set", index=ip.link_lookup(ifname=name)[0], master=index)

        bed.inside(None, make)
        return bed

    def _add_big_bridge(self, stack: ExitStack, beds: dict[str, Testbed]) -> str:
        """Why there is none; empty if there is."""
        bed = self._bridge(stack)

        def enlarge() -> list[str]:
            lacks = []
            for name in bed.interfaces:
                interface = find(name)
                if interface is None:
                    raise BenchError(f"{name} is gone")
                try:
                    lacks.append(BigTcp().enlarge(interface))
                except PortError as error:
                    lacks.append(str(error))
            return [lack for lack in lacks if lack]

        lacks = bed.inside(None, enlarge)
        if not lacks:
            beds[BIG_BRIDGE] = bed
        return "; ".join(lacks)

    @staticmethod
    def _pair(stack: ExitStack) -> Testbed:
        """The hosts' interfaces are the two ends of one pair."""
        bed = stack.enter_context(Testbed.of(2))
        one, other = bed.hosts

        def remove() -> None:
            with IPRoute() as ip:
                ip.link("del", index=ip.link_lookup(ifname=one.interface)[0])

        def join() -> None:
            with IPRoute() as ip:
                peer = {"ifname": other.interface, "net_ns_fd": other.namespace}
                ip.link("add", ifname=one.interface, kind="veth", peer=peer)

        def set_up(address: str) -> None:
            with IPRoute() as ip:
                index = ip.link_lookup(ifname=one.interface)[0]
                ip.link("set", index=index, state="up")
                ip.addr("add", index=index, address=address, prefixlen=24)

        for host in bed.hosts:
            bed.inside(host.name, remove)
        bed.inside(one.name, join)
        for host in bed.hosts:
            bed.inside(host.name, lambda host=host: set_up(host.address4))  # type: ignore[misc]
        return bed

    @staticmethod
    def _ovs(stack: ExitStack) -> Testbed:
        bed = stack.enter_context(Testbed.of(2))
        ovs = OpenVSwitch(bed.interfaces, userspace_tso=True)
        bed.inside(None, ovs.__enter__)
        stack.callback(ovs.close)
        ovs.add_flows(["priority=0,actions=NORMAL"])
        return bed

    # ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _throughput(self, bed: Testbed, streams: int, name: str) -> float:
        """Gb/s that were received."""
        iperf = [*([] if name == OVS else self._first), "iperf3"]
        server = bed.start([*iperf, "-s", "-1", "-4"], host="h2", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._wait_for_listener(bed)
            options = ["-P", str(streams), "-t", str(self._seconds), "-J", "-A", self._cpus]
            done = bed.run([*iperf, "-c", bed["h2"].address4, *options], host="h1", timeout=self._seconds + 60)
        finally:
            bed.stop(server)
        try:
            answer = json.loads(done.stdout)
            bits = float(answer["end"]["sum_received"]["bits_per_second"])
        except (ValueError, KeyError) as error:
            raise BenchError(f"iperf3: {done.stdout[-300:]}{done.stderr[-300:]}") from error
        if not bits:
            raise BenchError("iperf3: nothing arrived")
        return bits / 1e9

    @staticmethod
    def _wait_for_listener(bed: Testbed) -> None:
        """iperf3 -s takes some milliseconds; to connect would use up its one test, so ask the kernel."""
        end = time.monotonic() + READY_SECONDS
        while ":5201" not in bed.run(["ss", "-Hltn"], host="h2").stdout:
            if time.monotonic() > end:
                raise BenchError("iperf3 does not listen")
            time.sleep(0.01)

    def _round_trip(self, bed: Testbed) -> float:
        """The median of µs from a request of one byte to its response, over one connection. Both ends share a CPU, so that what is
        measured is the way and not how fast the other CPU wakes up."""
        return self._ask(bed, "serve", "ask", self._requests)

    def _datagram(self, bed: Testbed) -> float:
        """ns of CPU that a datagram takes from its sender to the receiver's socket, which is full."""
        return self._ask(bed, "hold", "send", self._datagrams)

    @staticmethod
    def _ask(bed: Testbed, answering: str, asking: str, times: int) -> float:
        cpu = str(max(os.sched_getaffinity(0)))
        address = bed["h2"].address4
        command = [sys.executable, ASK, answering, cpu, address]
        server = bed.start(command, host="h2", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            port = server.stdout.readline().strip() if server.stdout is not None else ""
            done = bed.run([sys.executable, ASK, asking, cpu, address, port, str(times)], host="h1", timeout=60)
        finally:
            bed.stop(server)
            for pipe in (server.stdin, server.stdout):
                if pipe is not None:
                    pipe.close()
        if done.returncode:
            raise BenchError(f"{asking} in {bed.switch_namespace}: {done.stderr[-500:]}")
        return float(done.stdout)
