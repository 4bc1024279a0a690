"""Forwarding rate: frames of 64 bytes that one CPU makes, forwards and counts, in millions a second.

Each contender has a way of its own (paths.py); the rate is of what arrived. The aims are of XDP, the switch's quickest way for
such frames. At TC the kernel makes an skb of each: how far that goes is seen beside a program there that only redirects, and beside
the bridge.

Invariant: one that lost more than a hundredth of the frames has a note; but Open vSwitch, which runs on a CPU of its own, loses by
design of the test: it is given frames at several rates, and the one at which it forwards most is its.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import frames
import kernel
import openvswitch
from kernel import BenchError, Kernel
from openvswitch import OpenVSwitch
from paths import Path, Paths, make_bridge
from results import Aim, Row, in_turn

from appliance.datapath import netlink
from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathPort
from appliance.datapath.loader import Sizes
from appliance.model.megaflow import Forward, Megaflow
from appliance.model.ports import Hook

GROUP = "forwarding rate"
FEWEST_FRAMES = 1 << 15
LOSS = 0.01
LATE_SECONDS = 60.0
OVS_DELAYS = (0, 500, 1000, 1500, 2000, 2500, 3000)

OURS_XDP, OURS_TC = "ofswitch, XDP", "ofswitch, TC"
MINIMAL_XDP, LOOKUP_XDP, MINIMAL_TC = "minimal XDP redirect", "XDP redirect, one look-up", "minimal TC redirect"
BRIDGE, OVS, OVS_XDP = "Linux bridge", "Open vSwitch, netdev", "Open vSwitch, AF_XDP"


@dataclass(slots=True)
class Contender:
    path: Path
    sent: int = 0
    arrived: int = 0
    delays: tuple[int, ...] = (0,)
    """Turns of a loop between frames to try. One that runs on another CPU than the source forwards less when it drowns."""
    delay: int = 0
    frames: int = FEWEST_FRAMES
    """To send next time."""


@dataclass(slots=True)
class Forwarding:
    """Call ``rows`` in a namespace of its own."""

    programs: Kernel
    seconds: float
    rounds: int
    flow_counts: tuple[int, ...]
    _paths: Paths = field(init=False)
    _contenders: dict[str, Contender] = field(default_factory=dict)
    _missing: dict[str, str] = field(default_factory=dict)
    _refused: int = 0
    _open: ExitStack = field(default_factory=ExitStack)

    def rows(self) -> Generator[Row, None, None]:
        with self._open:
            self._paths = Paths(self.programs, self._open.enter_context(kernel.hosts_namespace()))
            self._set_up(max(self.flow_counts))
            with kernel.on_one_cpu():
                for flows in self.flow_counts:
                    yield from self._measure(flows)

    # ── setting up ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _path(self, name: str, *, skb_sink: bool = True) -> Path:
        path = self._paths.add(skb_sink=skb_sink)
        self._contenders[name] = Contender(path)
        return path

    def _set_up(self, flows: int) -> None:
        self._set_up_programs(flows)
        self._set_up_bridge()
        self._set_up_ovs(flows)
        self._set_up_ours(flows)

    def _set_up_programs(self, flows: int) -> None:
        netlink.attach_xdp(self._path(MINIMAL_XDP, skb_sink=False).inside, self.programs.program("xdp_minimal"))
        path = self._path(LOOKUP_XDP, skb_sink=False)
        for flow in range(flows):
            self.programs.add_tuple(frames.tuple_key(flow), path.out_place, path.outside)
        netlink.attach_xdp(path.inside, self.programs.program("xdp_lookup"))
        netlink.attach_tc(self._path(MINIMAL_TC).inside, self.programs.program("tc_minimal"))

    def _set_up_bridge(self) -> None:
        make_bridge(self._path(BRIDGE))

    def _set_up_ovs(self, flows: int) -> None:
        """One, for it cannot be in a namespace twice: ports 1 and 2 by AF_PACKET, 3 and 4 by AF_XDP."""
        ways: dict[str, Path] = {}
        for name in (OVS, OVS_XDP):
            if reason := openvswitch.why_not(afxdp=name == OVS_XDP):
                self._missing[name] = reason
            else:
                ways[name] = self._path(name)
                self._contenders[name].delays = OVS_DELAYS
        if not ways:
            return
        interfaces = {name: (way.in_name, way.out_name) for name, way in ways.items()}
        ovs = OpenVSwitch([name for pair in interfaces.values() for name in pair], afxdp=interfaces.get(OVS_XDP, ())).__enter__()
        self._open.callback(ovs.close)
        for in_port in range(1, 2 * len(ways), 2):
            sources = (_dotted(frames.source_address(flow)) for flow in range(flows))
            ovs.add_flows([f"ip,in_port={in_port},nw_src={source},actions=output:{in_port + 1}" for source in sources])

    def _set_up_ours(self, flows: int) -> None:
        """Both hooks in one fast path: ports 1 and 2 are at TC, 3 and 4 at XDP."""
        datapath = BpfDatapath(Sizes(megaflows=1 << (4 * flows + 4).bit_length(), upcall_pages=64))
        self._open.callback(datapath.close)
        mask, number = frames.mask(0), 0
        for name, hook, in_port in ((OURS_TC, Hook.TC, 1), (OURS_XDP, Hook.XDP, 3)):
            path = self._path(name, skb_sink=hook is Hook.TC)
            straight = self._paths.straight(path)
            datapath.attach(DatapathPort(in_port, path.in_name, path.inside, hook, xdp_transmit=True))
            datapath.attach(DatapathPort(in_port + 1, path.out_name, path.outside, hook, xdp_transmit=True, other_end=straight))
            for flow in range(flows):
                number += 1
                megaflow = Megaflow(number, frames.flow_key(flow, in_port) & mask, mask, (Forward(in_port + 1),))
                self._refused += not datapath.install(megaflow)
        datapath.caught_up(range(1, number + 1))

    # ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _run(self, name: str, flows: int, delay: int | None = None) -> float:
        """Millions a second."""
        contender = self._contenders[name]
        run = self._paths.run(contender.path, flows, contender.frames, contender.delay if delay is None else delay)
        contender.sent += contender.frames
        contender.arrived += run.arrived
        contender.frames = max(int(contender.frames * self.seconds / run.seconds), FEWEST_FRAMES)
        return run.arrived / run.in_all / 1e6

    def _measure(self, flows: int) -> Iterator[Row]:
        for name, contender in self._contenders.items():
            self._run(name, flows)
            contender.delay = max(contender.delays, key=lambda delay, name=name: self._run(name, flows, delay))  # type: ignore[misc]
            contender.sent = contender.arrived = 0
        end = time.monotonic() + LATE_SECONDS
        while True:
            samples = in_turn(
                {name: lambda name=name: self._run(name, flows) for name in self._contenders},  # type: ignore[misc]
                self.rounds,
            )
            silent = [name for name, contender in self._contenders.items() if not contender.arrived]
            if not silent:  # one whose thread got no CPU in so short a time is not
                break
            if time.monotonic() > end:
                raise BenchError(f"{', '.join(silent)}: not one frame arrived")
        if flows == 1:
            yield self._row(samples, flows, MINIMAL_XDP, "", "minimal_xdp", None)
        yield self._row(samples, flows, OURS_XDP, MINIMAL_XDP, "xdp_minimal", None)
        yield self._row(samples, flows, OURS_XDP, LOOKUP_XDP, "xdp_lookup", Aim(">=", 0.85))
        yield self._row(samples, flows, OURS_XDP, BRIDGE, "xdp_bridge", Aim(">=", 2))
        yield self._row(samples, flows, OURS_XDP, OVS, "xdp_ovs", Aim(">=", 5))
        yield self._row(samples, flows, OURS_XDP, OVS_XDP, "xdp_ovs_afxdp", Aim(">=", 5))
        yield self._row(samples, flows, OURS_TC, MINIMAL_TC, "tc_minimal", None)
        yield self._row(samples, flows, OURS_TC, BRIDGE, "tc_bridge", None)
        yield self._row(samples, flows, OURS_TC, OVS, "tc_ovs", None)
        yield self._row(samples, flows, OURS_TC, OVS_XDP, "tc_ovs_afxdp", None)

    def _row(self, samples: dict[str, list[float]], flows: int, name: str, reference: str, row: str, aim: Aim | None) -> Row:
        notes = [f"{reference}: {self._missing[reference]}"] if reference in self._missing else []
        if self._refused:
            notes.append(f"{self._refused:,} of {2 * max(self.flow_counts):,} megaflows found no place")
        for who in (name, reference):
            contender = self._contenders.get(who)
            if contender is not None and len(contender.delays) == 1 and contender.arrived < contender.sent * (1 - LOSS):
                notes.append(f"{who} lost {1 - contender.arrived / contender.sent:.1%}")
        text = f"{name}, {flows:,} flow{'s' if flows > 1 else ''}"
        key = "one" if flows == 1 else f"many_{self.flow_counts.index(flows)}"
        return Row(
            f"forward.{row}.{key}",
            GROUP,
            text,
            "Mpps",
            samples[name],
            reference,
            samples.get(reference, []),
            aim,
            "; ".join(notes),
        )


def _dotted(address: int) -> str:
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))
