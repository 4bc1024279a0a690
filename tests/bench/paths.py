"""A way through a contender for the frames that programs.c makes, and ends in a sink that counts them:

    source → near | in [contender] out | far → sink

Two veth pairs. `far` is in another namespace, as a container's end is, and has the frames' destination for an address; the other
ends are in the caller's. The source is an XDP program run on live frames that redirects them to `near`, so they come in at `in`.
Each contender has a way of its own, so one after the other can be run with nothing to set up in between.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import frames
import kernel
import links
from kernel import BenchError, Kernel
from pyroute2 import IPRoute

from appliance.datapath import netlink
from appliance.lab import namespace
from appliance.ports import choose_output, interface

SETTLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Path:
    """The four interfaces, by index."""

    number: int
    near: int
    inside: int
    outside: int
    far: int

    @property
    def in_name(self) -> str:
        return f"in{self.number}"

    @property
    def out_name(self) -> str:
        return f"out{self.number}"

    @property
    def source_place(self) -> int:
        """In ``devices``: where the source sends to."""
        return 2 * self.number

    @property
    def out_place(self) -> int:
        """In ``devices``: where a forwarding program does."""
        return 2 * self.number + 1


@dataclass(frozen=True, slots=True)
class Run:
    """``timed`` of the frames were made in ``seconds``; ``arrived`` came to the sink, in ``in_all`` seconds from the first."""

    seconds: float
    timed: int
    arrived: int
    in_all: float


class Paths:
    def __init__(self, programs: Kernel, hosts: str) -> None:
        """``hosts`` is the namespace for what is at the ways' ends."""
        self._programs = programs
        self._hosts = hosts
        self._number = 0

    def add(self, *, skb_sink: bool = False) -> Path:
        """``skb_sink``: the sink is at TC, which costs a contender less whose frames are skbs by then than one at XDP."""
        number = self._number
        self._number += 1
        near, inside = links.veth(f"near{number}", f"in{number}")
        outside, far = links.veth_to(f"out{number}", f"far{number}", self._hosts, frames.DESTINATION_MAC)
        attach, sink = (netlink.attach_tc, "tc_sink") if skb_sink else (netlink.attach_xdp, "xdp_sink")
        namespace.inside(self._hosts, lambda: attach(far, self._programs.program(sink)))
        links.needs_napi(f"in{number}")
        path = Path(number, near, inside, outside, far)
        self._programs.write("devices", kernel.word(path.source_place), kernel.word(near))
        self._programs.write("devices", kernel.word(path.out_place), kernel.word(outside))
        self._programs.write("minimal", kernel.word(inside), kernel.word(path.out_place) + kernel.word(outside))
        return path

    def straight(self, path: Path) -> bytes:
        """What the switch chooses for the way out (``DatapathPort.other_end``)."""
        found = interface.find(path.out_name)
        if found is None:
            raise BenchError(f"{path.out_name} is gone")
        return choose_output(found).other_end

    def run(self, path: Path, flows: int, count: int, delay: int = 0) -> Run:
        """Send ``count`` frames of so many flows, drawn at random, each after ``delay`` turns of a loop."""
        programs = self._programs
        programs.set_source(flows, path.source_place, delay)
        before = programs.arrived()
        kernel.send_live(programs.program("xdp_source"), frames.frame(0), count)
        time.sleep(SETTLE_SECONDS)
        first, last = programs.source_times()
        timed = (count - 1) // kernel.BATCH * kernel.BATCH
        return Run(last - first, timed, programs.arrived() - before, max(last, programs.last_arrival()) - first)


def make_bridge(path: Path) -> None:
    """Of the path's two ports, with the frames' destination behind the second one."""
    namespace.write_sysctl("net/bridge/bridge-nf-call-iptables", 0)  # on, it would slow the bridge down, or stop it
    with IPRoute() as ip:
        ip.link("add", ifname="bridge", kind="bridge")
        index = ip.link_lookup(ifname="bridge")[0]
        namespace.write_sysctl("net/ipv6/conf/bridge/disable_ipv6", 1)
        ip.link("set", index=index, state="up")
        for port in (path.inside, path.outside):
            ip.link("set", index=port, master=index)
        ip.fdb("append", ifindex=path.outside, lladdr=frames.DESTINATION_MAC, master=index, state=0x40)
