"""Barrier: how long it takes from a flow-mod and a barrier request to the first packet that goes the new way, while thousands of
megaflows are live; and whether a packet goes the old way after the barrier reply.

Each packet is of one of side² flows, each a megaflow of its own; the flow-mod moves ``side`` of them from one host to another.
Packets of one of these flows are sent all the while, one every PACE_SECONDS.

Invariant: the megaflows are live when the flow-mod is sent: each had a packet just before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from kernel import BenchError, Kernel
from misses import FIRST_DESTINATION, FIRST_SOURCE, packet, two_tables
from results import Aim, Row, in_turn
from rig import OURS, OVS, Rig, rigs, touch, turns

from appliance.model.actions import ApplyActions, Output
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.openflow.messages import BarrierRequest, FlowMod, FlowModCommand

GROUP = "barrier"
PACE_SECONDS = 0.0001
LATE_SECONDS = 60.0
AFTER = 20
"""Packets that are sent after the barrier reply; those before it have PAUSE paces to arrive."""
PAUSE = 5
OLD_PORT, NEW_PORT = 2, 3
UDP, IPV4 = 17, 0x0800


def all_packets(side: int) -> list[bytes]:
    """One for each megaflow of ``misses.two_tables(side, told_apart=True)``."""
    return [packet(FIRST_SOURCE + n // side, FIRST_DESTINATION + n % side) for n in range(side * side)]


class Barrier:
    def __init__(self, programs: Kernel, *, side: int, rounds: int) -> None:
        self._programs = programs
        self._side = side
        self._rounds = rounds
        self._packets = all_packets(side)
        self._replies: dict[str, list[float]] = {OURS: [], OVS: []}
        self._old_way: dict[str, int] = {OURS: 0, OVS: 0}
        self._live: dict[str, int] = {}

    def rows(self) -> Generator[Row, None, None]:
        with rigs(self._programs, ["xdp_sink", "xdp_other_sink"]) as (contenders, missing):
            for name, rig in contenders.items():
                rig.switch.add_flows(two_tables(self._side, told_apart=True))
                touch(self._programs, rig, self._packets)
                self._live[name] = rig.switch.megaflows()
            samples = in_turn(turns(list(contenders), lambda name: self._sample(contenders[name])), self._rounds)
        notes = [
            f"{name}: {self._live[name]:,} megaflows; after the barrier reply "
            f"{self._old_way[name]} of {self._rounds * AFTER} packets went the old way"
            for name in contenders
        ]
        note = "; ".join([*([missing] if missing else []), *notes])
        text = f"{self._side**2:,} flows"
        for key, what, found, aim in (
            ("new_way", f"{OURS}, first packet on the new way, {text}", samples, Aim("<=", 1)),
            ("reply", f"{OURS}, barrier reply, {text}", self._replies, None),
        ):
            yield Row(f"barrier.{key}", GROUP, what, "ms", found[OURS], OVS, found.get(OVS, []), aim, note)

    def _sample(self, rig: Rig) -> float:
        """Milliseconds. The flow entry goes back to its old way before this returns."""
        round_number = len(self._replies[rig.name])
        destination = FIRST_DESTINATION + round_number % self._side
        frame = packet(FIRST_SOURCE, destination)
        touch(self._programs, rig, self._packets)
        old, new = self._programs.arrived, lambda: self._programs.arrived(1)
        with rig.controller() as controller:
            before = new()
            start = time.perf_counter()
            controller.send(_move(destination, NEW_PORT), BarrierRequest())
            arrived = replied = 0.0

            def pace() -> None:
                """Rather than turn round: the switch needs the CPU too."""
                nonlocal arrived
                time.sleep(PACE_SECONDS)
                if not arrived and new() != before:
                    arrived = time.perf_counter()

            while not (arrived and replied):
                rig.wire.send(frame)
                pace()
                if not replied and controller.poll():
                    replied = time.perf_counter()
                    self._old_way[rig.name] += self._after(rig, frame, pace)
                if time.perf_counter() - start > LATE_SECONDS:
                    what = "packet on the new way" if replied else "barrier reply"
                    raise BenchError(f"{rig.name}: no {what} for {LATE_SECONDS:.0f} s")
            self._replies[rig.name].append((replied - start) * 1000)
            controller.barrier(_move(destination, OLD_PORT))
            end = time.monotonic() + LATE_SECONDS
            before = old()
            while old() == before and time.monotonic() < end:
                rig.wire.send(frame)
                time.sleep(PACE_SECONDS)
        return (arrived - start) * 1000

    def _after(self, rig: Rig, frame: bytes, pace: Callable[[], None]) -> int:
        """Of packets sent from now on, those that go the old way."""
        for _ in range(PAUSE):
            pace()
        before = self._programs.arrived()
        for _ in range(AFTER):
            rig.wire.send(frame)
            pace()
        for _ in range(PAUSE):
            pace()
        return self._programs.arrived() - before


def _move(destination: int, port: int) -> FlowMod:
    """The flow-mod for one of ``misses.two_tables``'s entries of table 1."""
    fields = (("eth_type", IPV4), ("ip_proto", UDP), ("udp_dst", destination))
    match = Match.of([MatchField(BY_NAME[name], value) for name, value in fields])
    actions = (ApplyActions((Output(port),)),)
    return FlowMod(table_id=1, command=FlowModCommand.MODIFY_STRICT, priority=10, match=match, instructions=actions)
