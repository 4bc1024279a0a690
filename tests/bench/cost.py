"""The cost of the fast path's programs, in nanoseconds a packet, by BPF_PROG_TEST_RUN.

A test run repeats one frame, which would always be found in the caches and would grow by a tag each time. So what is repeated is a
wrapper (programs.c): it makes the frame anew for a flow drawn at random and goes on, by a tail call, with the program that is
measured, ours or a hand-written one for the same job. The wrapper with a program that does nothing is measured beside them and
subtracted from both, which makes the ratio harder on us than one of whole runs would be.

Invariant: a run in which our programs did not themselves handle at least FAST_SHARE of the packets is an error, not a figure.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import frames
import kernel
import links
from kernel import BenchError, Kernel
from results import Aim, Row, in_turn

from appliance.datapath import netlink
from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathPort
from appliance.datapath.loader import Sizes
from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import FIRST_AGAIN, Again, DatapathAction, Flood, Forward, Megaflow, PushTag
from appliance.model.ports import Hook

GROUP = "fast-path cost"
FAST_SHARE = 0.99
LOOPBACK = 1
"""Test runs come in on the loopback interface of the namespace, whose index is 1."""
IN_PORT, OUT_PORT = 1, 2
FLOOD_PORTS = (2, 3, 4, 5)

NAT = (
    SetField(BY_NAME["eth_src"], frames.NEW_MAC),
    SetField(BY_NAME["ipv4_src"], frames.NEW_ADDRESS),
    SetField(BY_NAME["udp_src"], frames.NEW_PORT),
    Forward(OUT_PORT),
)
VLAN = (PushTag(0x8100, frames.NEW_VID), Forward(OUT_PORT))

FORWARDED = {False: (kernel.XDP_REDIRECT,), True: (kernel.TC_REDIRECT,)}
DROPPED = {False: (kernel.XDP_DROP,), True: (kernel.TC_SHOT, kernel.TC_STOLEN)}


@dataclass(frozen=True, slots=True)
class Case:
    """``against`` is the hand-written program's name without its hook."""

    id: str
    name: str
    flows: int
    masks: int
    actions: tuple[DatapathAction, ...]
    against: str
    reference: str
    aim: Aim | None = None
    hooks: tuple[bool, ...] = (False, True)
    codes: dict[bool, tuple[int, ...]] | None = None
    rest: tuple[DatapathAction, ...] = ()
    """Of packets that ``actions`` have looked up again."""
    weight: float = 1.0
    """Of the repeats: less for what takes long."""


def cases(some: int, many: int) -> list[Case]:
    """``some`` and ``many`` flows: 10,000 and 100,000 in a full run."""
    forward = (Forward(OUT_PORT),)
    look_up = "hand-written, one look-up"

    def flows(name: str, number: int, masks: int, aim: Aim | None) -> Case:
        text = f"{number:,} flow{'s' if number > 1 else ''}" + (f", {masks} masks" if masks > 1 else "")
        return Case(name, text, number, masks, forward, "lookup", look_up, aim)

    return [
        flows("one", 1, 1, Aim("<=", 1.5)),
        Case("parts", "1 flow, looked up twice", 1, 1, (Again(FIRST_AGAIN),), "lookup", look_up, None, (True,), rest=forward),
        flows("some", some, 1, Aim("<=", 2)),
        flows("many", many, 1, Aim("<=", 2)),
        flows("many_4", many, 4, Aim("<=", 2)),
        flows("many_16", many, 16, Aim("<=", 2)),
        flows("many_64", many, 64, None),
        Case("vlan", "push a VLAN tag", 1, 1, VLAN, "vlan", "hand-written push", Aim("<=", 1.5)),
        Case("nat", "rewrite MAC, address, port", 1, 1, NAT, "nat", "hand-written rewrite", Aim("<=", 1.5)),
        Case("drop", "drop", 1, 1, (), "drop", "hand-written drop", Aim("<=", 1.5), codes=DROPPED),
        Case(
            "flood",
            "flood to 4",
            1,
            1,
            (Flood(),),
            "flood",
            "hand-written, clones",
            Aim("<=", 1.5),
            (True,),
            DROPPED,
            weight=0.05,
        ),
    ]


class FastPathCost:
    """Call ``rows`` in a namespace of its own: it makes interfaces there."""

    def __init__(self, programs: Kernel, *, repeat: int, rounds: int, some: int, many: int) -> None:
        self._programs = programs
        self._repeat = repeat
        self._rounds = rounds
        self._cases = cases(some, many)
        self._sizes = Sizes(megaflows=1 << max(many * 5 // 4 - 1, 1023).bit_length(), upcall_pages=64)
        self._next_id = 1

    def rows(self) -> Generator[Row, None, None]:
        """Each as it is measured."""
        with closing(BpfDatapath(self._sizes)) as datapath, kernel.on_one_cpu():
            self._attach(datapath)
            yield from self._harness()
            for case in self._cases:
                self._install_tuples(case.flows)
                with self._installed(datapath, case) as refused:
                    self._programs.set_source(case.flows)
                    for tc in case.hooks:
                        yield self._row(datapath, case, tc, refused)

    def _attach(self, datapath: BpfDatapath) -> None:
        places = {}
        for number in FLOOD_PORTS:
            places[number], end = links.veth(f"out{number}", f"end{number}")
            netlink.attach_xdp(end, self._programs.program("xdp_sink"))
        datapath.attach(DatapathPort(IN_PORT, "lo", LOOPBACK, Hook.TC))
        for place, number in enumerate(FLOOD_PORTS):
            datapath.attach(DatapathPort(number, f"out{number}", places[number], Hook.TC, xdp_transmit=True))
            self._programs.write("flood_to", kernel.word(place), kernel.word(places[number]))
        self._out = places[OUT_PORT]
        self._programs.write("devices", kernel.word(0), kernel.word(self._out))
        self._programs.write("minimal", kernel.word(LOOPBACK), kernel.word(0) + kernel.word(self._out))

    def _install_tuples(self, flows: int) -> None:
        for flow in range(flows):
            self._programs.add_tuple(frames.tuple_key(flow), 0, self._out)

    @contextmanager
    def _installed(self, datapath: BpfDatapath, case: Case) -> Iterator[int]:
        """One megaflow a flow, spread evenly over the masks; how many the fast path refused."""
        first = self._next_id
        refused = 0
        masks = [frames.mask(number) for number in range(case.masks)]
        for flow in range(case.flows):
            mask = masks[flow % case.masks]
            refused += not datapath.install(Megaflow(self._next_id, frames.flow_key(flow, IN_PORT) & mask, mask, case.actions))
            self._next_id += 1
        if case.rest:
            datapath.install(Megaflow(self._next_id, frames.flow_key(0, FIRST_AGAIN) & masks[0], masks[0], case.rest))
            self._next_id += 1
        ids = range(first, self._next_id)
        datapath.caught_up(ids)
        try:
            yield refused
        finally:
            datapath.remove(ids)

    def _run(self, fd: int, repeat: int, tc: bool, codes: Sequence[int]) -> float:
        self._programs.measure(fd, tc=tc)
        wrapper = self._programs.program("tc_wrapper" if tc else "xdp_wrapper")
        code, nanoseconds = kernel.test_run(wrapper, frames.frame(0), repeat)
        if codes and code not in codes:
            raise BenchError(f"a program under measurement returned {code}, not {' or '.join(map(str, codes))}")
        return nanoseconds

    def _harness(self) -> Iterator[Row]:
        """What the wrapper costs, and a redirect without a look at the packet: for orientation."""
        self._programs.set_source(1)
        for tc in (False, True):
            hook = "tc" if tc else "xdp"
            nothing, minimal = self._programs.program(f"{hook}_nothing"), self._programs.program(f"{hook}_minimal")
            samples = in_turn(
                {
                    "nothing": lambda fd=nothing, tc=tc: self._run(fd, self._repeat, tc, DROPPED[tc]),  # type: ignore[misc]
                    "minimal": lambda fd=minimal, tc=tc: self._run(fd, self._repeat, tc, FORWARDED[tc]),  # type: ignore[misc]
                },
                self._rounds,
            )
            yield Row(f"cost.{hook}.harness", GROUP, f"{hook.upper()} harness alone (subtracted below)", "ns", samples["nothing"])
            net = [a - b for a, b in zip(samples["minimal"], samples["nothing"], strict=True)]
            yield Row(f"cost.{hook}.redirect", GROUP, f"{hook.upper()} bare redirect", "ns", net)

    def _row(self, datapath: BpfDatapath, case: Case, tc: bool, refused: int) -> Row:
        hook = "tc" if tc else "xdp"
        repeat = int(self._repeat * case.weight)
        codes = (case.codes or FORWARDED)[tc]
        ours = datapath.programs.tc_fd if tc else datapath.programs.xdp_fd
        hand_written = self._programs.program(f"{hook}_{case.against}")
        nothing = self._programs.program(f"{hook}_nothing")
        # One packet may be of a flow that found no place; the counters will tell whether most were handled.
        ours_codes = () if refused else codes
        self._run(ours, repeat, tc, ours_codes)
        before = self._handled(datapath, tc, case)
        samples = in_turn(
            {
                "ours": lambda: self._run(ours, repeat, tc, ours_codes),
                "nothing": lambda: self._run(nothing, repeat, tc, DROPPED[tc]),
                "reference": lambda: self._run(hand_written, repeat, tc, codes),
            },
            self._rounds,
        )
        share = (self._handled(datapath, tc, case) - before) / (repeat * self._rounds)
        if share < FAST_SHARE:
            raise BenchError(f"{hook} {case.name}: the fast path handled {share:.1%} of the packets")
        net = {name: [a - b for a, b in zip(samples[name], samples["nothing"], strict=True)] for name in ("ours", "reference")}
        return Row(
            f"cost.{hook}.{case.id}",
            GROUP,
            f"{hook.upper()} {case.name}",
            "ns",
            net["ours"],
            case.reference,
            net["reference"],
            case.aim,
            f"{refused:,} of {case.flows:,} megaflows found no place" if refused else "",
        )

    @staticmethod
    def _handled(datapath: BpfDatapath, tc: bool, case: Case) -> int:
        """Packets that the fast path dealt with itself at this hook."""
        counters = datapath.port_counters()[IN_PORT]
        if not case.actions:
            return counters.dropped
        return counters.forwarded_tc if tc else counters.forwarded_xdp
