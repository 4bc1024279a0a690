"""Memory: what the switch's process has resident, for 100,000 flow entries and for 100,000 megaflows.

The kernel's memory for our maps is allocated when the switch starts, for as many megaflows as there may be; it is a figure of its
own. Open vSwitch (netdev) has all in its process.

Invariant: each sample is of a switch that was just started; the flow entries are in a table that no packet comes to.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

from barrier import all_packets
from flow_mods import entry
from kernel import BenchError, Kernel
from misses import two_tables
from results import Aim, Row
from rig import OURS, OVS, Rig, rigs, touch

GROUP = "memory"
SHOWN = 100_000
TABLE = 9
_MAP = re.compile(r"^(map_id|memlock):\s*(\d+)$", re.MULTILINE)


class Memory:
    def __init__(self, programs: Kernel, *, entries: int, side: int, rounds: int) -> None:
        """``entries`` flow entries, side² megaflows."""
        self._programs = programs
        self._entries = entries
        self._side = side
        self._rounds = rounds
        self._missing = ""

    def rows(self) -> Generator[Row, None, None]:
        what = ("start", "flows", "megaflows", "maps")
        samples: dict[str, dict[str, list[float]]] = {key: {OURS: [], OVS: []} for key in what}
        for _ in range(self._rounds):
            for sample in (self._flows, self._megaflows):
                with rigs(self._programs, ["xdp_sink"]) as (contenders, self._missing):
                    for name, rig in contenders.items():
                        for key, figure in sample(rig).items():
                            samples[key][name].append(figure)

        def row(key: str, text: str, aim: Aim | None) -> Row:
            ours, theirs = samples[key][OURS], samples[key][OVS]
            measured = {"flows": self._entries, "megaflows": self._side**2}.get(key, SHOWN)
            note = self._missing or (f"measured with {measured:,} of them" if measured != SHOWN else "")
            return Row(f"memory.{key}", GROUP, f"{OURS}, {text}", "MB", ours, OVS, theirs, aim, note)

        yield row("flows", f"{SHOWN:,} flow entries", Aim("<=", 1))
        yield row("megaflows", f"{SHOWN:,} megaflows", Aim("<=", 1))
        yield row("start", "when it has started", None)
        yield Row("memory.maps", GROUP, f"{OURS}, the kernel's for its maps", "MB", samples["maps"][OURS])

    def _flows(self, rig: Rig) -> dict[str, float]:
        start = rig.resident()
        rig.switch.add_flows([entry(number).replace("table=0", f"table={TABLE}") for number in range(self._entries)])
        return {"start": start, "flows": (rig.resident() - start) / self._entries * SHOWN}

    def _megaflows(self, rig: Rig) -> dict[str, float]:
        rig.switch.add_flows(two_tables(self._side, told_apart=True))
        before = rig.resident()
        touch(self._programs, rig, all_packets(self._side))
        megaflows = rig.switch.megaflows()
        if megaflows < self._side**2 // 10:
            raise BenchError(f"{rig.name}: only {megaflows:,} megaflows for {self._side**2:,} flows")
        result = {"megaflows": (rig.resident() - before) / megaflows * SHOWN}
        return {**result, "maps": _maps(rig.switch.pid)} if rig.name == OURS else result


def _maps(pid: int) -> float:
    """MB of memory that the kernel has for the BPF maps of a process."""
    sizes: dict[int, int] = {}
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        fields = {key: int(value) for key, value in _MAP.findall(path.read_text())}
        if "map_id" in fields:
            sizes[fields["map_id"]] = fields["memlock"]
    return sum(sizes.values()) / 1e6
