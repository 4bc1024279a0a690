"""Forwarding while somebody sends packets made to explode masks: what is left of it.

Two switches with the same tables, one of them attacked through a port of its own (3): table 0 forwards known hosts, and behind that
are rules on prefixes of three fields, so that each packet of explode.py would need another mask. What the hosts get through is
measured on both, in turn: frames of UDP from the first host to a sink at the fourth, TCP to the second.

Invariant: the attack has come up in the switch before anything is measured, or it is an error.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import frames
import kernel
import links
from kernel import BenchError, Kernel
from product import Product
from results import Aim, Row, in_turn

from appliance.datapath import netlink
from appliance.lab import namespace
from appliance.lab.testbed import Testbed

GROUP = "attack"
ATTACKED, QUIET = "ofswitch, attacked", "ofswitch, in peace"
RATE = 1000
WARM_UP_SECONDS = 3.0
COME_UP_SECONDS = 60.0
LISTEN_SECONDS = 60.0
EXPLODE = str(Path(__file__).with_name("explode.py"))
PREFIXED = (("nw_src", 32), ("nw_dst", 32), ("dl_src", 48))
"""A field of tables 0, 1 and 2, and its bits."""


def rules(flows: int) -> list[str]:
    """Known hosts, and for each place that the first 1 of a field may have, one entry."""
    known = [
        f"table=0,priority=300,udp,in_port=1,nw_src={_dotted(frames.source_address(n))},actions=output:4" for n in range(flows)
    ]
    known += ["table=0,priority=200,in_port=1,tcp,actions=output:2", "table=0,priority=200,in_port=2,actions=output:1"]
    known += ["table=0,priority=200,in_port=1,arp,actions=output:2"]
    for table, (name, bits) in enumerate(PREFIXED):
        then = f"goto_table:{table + 1}" if table + 1 < len(PREFIXED) else "drop"
        for place in range(1, bits + 1):
            value, mask = 1 << bits - place, (1 << bits) - (1 << bits - place)
            text = f"{_dotted(value)}/{_dotted(mask)}" if bits == 32 else f"{_mac(value)}/{_mac(mask)}"
            known.append(f"table={table},priority={100 - place},ip,{name}={text},actions={then}")
    return known


@dataclass(slots=True)
class Switch:
    bed: Testbed
    product: Product
    attacked: bool


class Attack:
    """Call ``rows`` in a namespace of its own."""

    def __init__(self, programs: Kernel, *, seconds: float, rounds: int, flows: int) -> None:
        self._programs = programs
        self._seconds = seconds
        self._rounds = rounds
        self._flows = flows
        self._seen = ""

    def rows(self) -> Generator[Row, None, None]:
        with ExitStack() as stack:
            switches = {ATTACKED: self._switch(stack, attacked=True), QUIET: self._switch(stack, attacked=False)}
            measures: tuple[tuple[str, str, str, Callable[[Switch], float], str], ...] = (
                ("udp", f"UDP, {self._flows:,} flows", "Mpps", self._forwarding, ""),
                ("tcp", "TCP, 1 stream", "Gb/s", self._throughput, "" if shutil.which("iperf3") else "not installed: iperf3"),
            )
            for key, what, unit, measure, missing in measures:
                samples: dict[str, list[float]] = {ATTACKED: [], QUIET: []}
                if not missing:
                    samples = in_turn({name: partial(self._measured, measure, one) for name, one in switches.items()}, self._rounds)
                note = missing or f"{RATE:,} packets/s: {self._seen}"
                yield Row(
                    f"attack.{key}",
                    GROUP,
                    f"{ATTACKED}, {what}",
                    unit,
                    samples[ATTACKED],
                    QUIET,
                    samples[QUIET],
                    Aim(">=", 0.9),
                    note,
                )

    # ── setting up ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _switch(self, stack: ExitStack, *, attacked: bool) -> Switch:
        bed = stack.enter_context(Testbed.of(4))
        for host in bed.hosts:
            bed.inside(host.name, partial(namespace.write_sysctl, f"net/ipv6/conf/{host.interface}/disable_ipv6", 1))
            bed.inside(host.name, partial(namespace.write_sysctl, "net/ipv4/tcp_congestion_control", "reno"))  # as in tcp.py
        sink = self._programs.program("xdp_sink")
        bed.inside("h4", lambda: netlink.attach_xdp(socket.if_nametoindex(bed["h4"].interface), sink))
        bed.inside(None, partial(links.needs_napi, bed.interfaces[0]))
        product = stack.enter_context(Product(bed))
        product.add_flows(rules(self._flows))
        return Switch(bed, product, attacked)

    @contextmanager
    def _under_attack(self, switch: Switch) -> Iterator[None]:
        before = switch.product.show()["upcalls"].get("miss", 0)
        source = switch.bed.start([sys.executable, EXPLODE, switch.bed["h3"].interface, str(RATE)], host="h3")
        try:
            time.sleep(WARM_UP_SECONDS)
            end = time.monotonic() + COME_UP_SECONDS
            while (shown := switch.product.show())["upcalls"].get("miss", 0) - before < RATE:
                if time.monotonic() > end:
                    raise BenchError("the packets of the attack do not come up")
            self._seen = f"{shown['masks']} masks, {shown['megaflows']:,} megaflows"
            yield
        finally:
            switch.bed.stop(source)

    def _measured(self, measure: Callable[[Switch], float], switch: Switch) -> float:
        if not switch.attacked:
            return measure(switch)
        with self._under_attack(switch):
            return measure(switch)

    # ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _forwarding(self, switch: Switch) -> float:
        """Millions of frames a second that arrive, of those that one CPU makes and forwards."""
        bed = switch.bed
        return float(bed.inside("h1", lambda: self._send(bed["h1"].interface)))

    def _send(self, interface: str) -> float:
        programs, count = self._programs, 1 << 15
        programs.write("devices", kernel.word(0), kernel.word(socket.if_nametoindex(interface)))
        source = programs.program("xdp_source")
        with kernel.on_one_cpu():
            while True:
                programs.set_source(self._flows, 0, 0)
                before = programs.arrived()
                kernel.send_live(source, frames.frame(0), count)
                time.sleep(0.02)
                first, last = programs.source_times()
                seconds = max(last, programs.last_arrival()) - first
                arrived = programs.arrived() - before
                if seconds >= self._seconds * 0.7:
                    break
                count = max(int(count * self._seconds / seconds), count * 2)
        if not arrived:
            raise BenchError("not one frame arrived")
        return arrived / seconds / 1e6

    def _throughput(self, switch: Switch) -> float:
        """Gb/s that were received."""
        bed = switch.bed
        server = bed.start(["iperf3", "-s", "-1", "-4"], host="h2", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + LISTEN_SECONDS
            while ":5201" not in bed.run(["ss", "-Hltn"], host="h2").stdout:
                if time.monotonic() > end:
                    raise BenchError("iperf3 does not listen")
                time.sleep(0.01)
            argv = ["iperf3", "-c", bed["h2"].address4, "-t", f"{max(1, round(self._seconds))}", "-J"]
            done = bed.run(argv, host="h1", timeout=self._seconds + 60)
        finally:
            bed.stop(server)
        try:
            bits = float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])
        except (ValueError, KeyError) as error:
            raise BenchError(f"iperf3: {done.stdout[-300:]}{done.stderr[-300:]}") from error
        if not bits:
            raise BenchError("iperf3: nothing arrived")
        return bits / 1e9


def _dotted(address: int) -> str:
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))


def _mac(address: int) -> str:
    return address.to_bytes(6, "big").hex(":")
