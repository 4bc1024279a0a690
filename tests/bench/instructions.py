"""What a packet costs in instructions, by our fast path, by Open vSwitch's kernel module and by others.

This runs in a guest whose clocks count instructions (tests/guest/machine.py, ``Clock.COUNTED``): a nanosecond there is one, and a
run takes as long each time.

    instructions.py OUT.json [--quick]

Every frame is of one flow, 64 bytes of UDP, over veth from a source to a sink; both are part of every figure. Frames that become
skbs are counted by a sink at TC, the others by one at XDP. Caches, mispredicted branches and other CPUs cost nothing here.

Invariant: a figure is of packets that arrived, all of them, and by the way that is named: Open vSwitch's datapath is asked for its
megaflow, our own for its counters.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path as File

ROOT = File(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

import frames  # noqa: E402
import openvswitch  # noqa: E402
from kernel import BATCH, BenchError, Kernel, hosts_namespace, own_namespace  # noqa: E402
from openvswitch import OpenVSwitch  # noqa: E402
from paths import Path, Paths, make_bridge  # noqa: E402
from report import open_vswitch_version  # noqa: E402
from results import Aim, Row, in_turn  # noqa: E402

from appliance.datapath import netlink  # noqa: E402
from appliance.datapath.bpf import BpfDatapath  # noqa: E402
from appliance.datapath.driver import DatapathPort  # noqa: E402
from appliance.datapath.loader import Sizes  # noqa: E402
from appliance.model.actions import SetField  # noqa: E402
from appliance.model.fields import BY_NAME  # noqa: E402
from appliance.model.megaflow import DatapathAction, Forward, Megaflow, PushTag  # noqa: E402
from appliance.model.ports import Hook  # noqa: E402

GROUP = "instructions a packet"
MODULE, BRIDGE = "Open vSwitch, kernel module", "Linux bridge"
OURS_TC, OURS_XDP = "ofswitch, TC", "ofswitch, XDP"
QUEUED = ", by the queue"
"""As to where the other end is no veth's in another namespace."""
MINIMAL_TC, LOOKUP_TC = "minimal TC redirect", "TC redirect, one look-up"
MINIMAL_XDP, LOOKUP_XDP = "minimal XDP redirect", "XDP redirect, one look-up"
REWRITTEN = ", VLAN and MAC"

FLOW = 0
READY_SECONDS = 10.0
OVS_BLIND_SECONDS = 11.0
NEW_VID_PRESENT = 0x1000
_MATCH = f"udp,nw_src=10.0.0.0,nw_dst=10.128.0.1,tp_src={frames.source_port(FLOW)},tp_dst={frames.DESTINATION_PORT}"
_REWRITE = f"push_vlan:0x8100,set_field:{NEW_VID_PRESENT | frames.NEW_VID}->vlan_vid,set_field:02:00:00:00:00:99->eth_dst"
REWRITE: tuple[DatapathAction, ...] = (PushTag(0x8100, frames.NEW_VID), SetField(BY_NAME["eth_dst"], frames.NEW_MAC))
OURS: dict[str, tuple[DatapathAction, ...]] = {
    OURS_TC: (),
    OURS_TC + QUEUED: (),
    OURS_XDP: (),
    OURS_TC + REWRITTEN: REWRITE,
    OURS_XDP + REWRITTEN: REWRITE,
}


class Instructions:
    def __init__(self, programs: Kernel, hosts: str, *, count: int, rounds: int) -> None:
        self._programs = programs
        self._count = count
        self._rounds = rounds
        self._paths = Paths(programs, hosts)
        self._ways: dict[str, Path] = {}

    def rows(self) -> list[Row]:
        with ExitStack() as stack:
            self._others()
            self._ovs(stack)
            handled = self._ours(stack)
            samples = self._samples()
            for name, count in handled.items():
                if count() < self._count * self._rounds:
                    raise BenchError(f"{name}: the fast path handled {count():,} packets, of {self._count * self._rounds:,}")

        def row(key: str, name: str, reference: str, aim: Aim | None = None) -> Row:
            return Row(f"instructions.{key}", GROUP, name, "", samples[name], reference, samples.get(reference, []), aim)

        return [
            row("tc.module", OURS_TC, MODULE, Aim("<=", 0.7)),
            row("tc.module.queue", OURS_TC + QUEUED, MODULE, Aim("<=", 0.78)),
            row("xdp.module", OURS_XDP, MODULE, Aim("<=", 0.28)),
            row("tc.module.rewrite", OURS_TC + REWRITTEN, MODULE + REWRITTEN),
            row("xdp.module.rewrite", OURS_XDP + REWRITTEN, MODULE + REWRITTEN),
            row("tc.minimal", OURS_TC, MINIMAL_TC),
            row("tc.lookup", OURS_TC, LOOKUP_TC),
            row("tc.bridge", OURS_TC, BRIDGE),
            row("xdp.minimal", OURS_XDP, MINIMAL_XDP),
            row("xdp.lookup", OURS_XDP, LOOKUP_XDP),
        ]

    # ── contenders ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _way(self, name: str, *, skb_sink: bool) -> Path:
        self._ways[name] = self._paths.add(skb_sink=skb_sink)
        return self._ways[name]

    def _others(self) -> None:
        programs = self._programs
        netlink.attach_xdp(self._way(MINIMAL_XDP, skb_sink=False).inside, programs.program("xdp_minimal"))
        netlink.attach_tc(self._way(MINIMAL_TC, skb_sink=True).inside, programs.program("tc_minimal"))
        # A tuple has one place, which the XDP program takes from it, and one interface, which the TC program takes.
        at_xdp, at_tc = self._way(LOOKUP_XDP, skb_sink=False), self._way(LOOKUP_TC, skb_sink=True)
        programs.add_tuple(frames.tuple_key(FLOW), at_xdp.out_place, at_tc.outside)
        netlink.attach_xdp(at_xdp.inside, programs.program("xdp_lookup"))
        netlink.attach_tc(at_tc.inside, programs.program("tc_lookup"))
        make_bridge(self._way(BRIDGE, skb_sink=True))

    def _ovs(self, stack: ExitStack) -> None:
        """Forwards from port 1 to port 2, and rewrites from port 3 to port 4."""
        ways = [self._way(name, skb_sink=True) for name in (MODULE, MODULE + REWRITTEN)]
        # In the first ten seconds after boot Open vSwitch 3.1 believes that there is no CPU, and handles no upcalls.
        time.sleep(max(0.0, OVS_BLIND_SECONDS - time.monotonic()))
        ovs = OpenVSwitch([name for way in ways for name in (way.in_name, way.out_name)], datapath="system").__enter__()
        stack.callback(ovs.close)
        ovs.add_flows([f"in_port=1,{_MATCH},actions=output:2", f"in_port=3,{_MATCH},actions={_REWRITE},output:4"])
        end = time.monotonic() + READY_SECONDS
        while ovs.megaflows() < len(ways):
            if time.monotonic() > end:
                raise BenchError("Open vSwitch installs no megaflows")
            for way in ways:
                self._paths.run(way, 1, BATCH)

    def _ours(self, stack: ExitStack) -> dict[str, Callable[[], int]]:
        """For each contender of ours, what the fast path counts as forwarded there."""
        datapath = BpfDatapath(Sizes(megaflows=1024, upcall_pages=64))
        stack.callback(datapath.close)
        mask, in_port = frames.mask(0), 1
        handled: dict[str, Callable[[], int]] = {}
        for name, actions in OURS.items():
            hook = Hook.XDP if name.startswith(OURS_XDP) else Hook.TC
            way = self._way(name, skb_sink=hook is Hook.TC)
            straight = b"" if name.endswith(QUEUED) else self._paths.straight(way)
            datapath.attach(DatapathPort(in_port, way.in_name, way.inside, hook, xdp_transmit=True))
            datapath.attach(DatapathPort(in_port + 1, way.out_name, way.outside, hook, xdp_transmit=True, other_end=straight))
            key = frames.flow_key(FLOW, in_port) & mask
            if not datapath.install(Megaflow(in_port, key, mask, (*actions, Forward(in_port + 1)))):
                raise BenchError(f"{name}: no place for the megaflow")
            datapath.caught_up((in_port,))
            counter = "forwarded_tc" if hook is Hook.TC else "forwarded_xdp"
            handled[name] = partial(self._counted, datapath, in_port, counter)
            in_port += 2
        return handled

    @staticmethod
    def _counted(datapath: BpfDatapath, in_port: int, counter: str) -> int:
        return int(getattr(datapath.port_counters()[in_port], counter))

    # ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _samples(self) -> dict[str, list[float]]:
        for name in self._ways:
            self._run(name)  # the first frames of all cost more
        samples = in_turn({name: lambda name=name: self._run(name) for name in self._ways}, self._rounds)  # type: ignore[misc]
        for name, found in samples.items():
            print(f"{name}: {found}", flush=True)
        return samples

    def _run(self, name: str) -> float:
        run = self._paths.run(self._ways[name], 1, self._count)
        if run.arrived != self._count:
            raise BenchError(f"{name}: {run.arrived:,} of {self._count:,} frames arrived")
        return run.seconds * 1e9 / run.timed


def main() -> None:
    options = {"count": 1024, "rounds": 2} if "--quick" in sys.argv else {"count": 8192, "rounds": 3}
    if missing := openvswitch.why_not("system"):
        raise BenchError(missing)
    programs = Kernel()
    try:
        with own_namespace(), hosts_namespace() as hosts:
            rows = Instructions(programs, hosts, **options).rows()
    finally:
        programs.close()
    about = {"kernel": platform.release(), "open_vswitch": open_vswitch_version(), "bpf_jit": _jit(), "cpus": os.cpu_count()}
    File(sys.argv[1]).write_text(json.dumps({**about, "rows": [row.to_json() for row in rows]}))


def _jit() -> bool:
    return File("/proc/sys/net/core/bpf_jit_enable").read_text().strip() != "0"


if __name__ == "__main__":
    main()
