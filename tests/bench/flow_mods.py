"""Flow-mods: many distinct flow entries added by ``ovs-ofctl add-flows``, one flow-mod each and not bundled, and then dumped.

The time is ovs-ofctl's, from its start to its end, and so includes that it reads the file and prints the dump.

Invariant: a figure counts only if the dump has every entry that was added.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from kernel import BenchError, Kernel
from results import Aim, Row, in_turn
from rig import OURS, OVS, Rig, rigs, turns

GROUP = "flow-mods"
FIRST_ADDRESS = 0x0A000000


def entry(number: int) -> str:
    address = ".".join(str(byte) for byte in (FIRST_ADDRESS + number).to_bytes(4, "big"))
    return f"table=0,priority=100,ip,nw_dst={address},actions=output:2"


class FlowMods:
    def __init__(self, programs: Kernel, *, entries: int, rounds: int) -> None:
        self._programs = programs
        self._entries = entries
        self._rounds = rounds

    def rows(self) -> Generator[Row, None, None]:
        dumps: dict[str, list[float]] = {OURS: [], OVS: []}
        with tempfile.TemporaryDirectory(prefix="bench-") as directory, rigs(self._programs, ["xdp_sink"]) as (contenders, missing):
            path = Path(directory, "flows")
            path.write_text("\n".join(map(entry, range(self._entries))) + "\n")

            def sample(name: str) -> float:
                rig = contenders[name]
                rig.switch.ofctl("del-flows")
                start = time.perf_counter()
                rig.switch.ofctl("add-flows", str(path))
                added = time.perf_counter() - start
                dumps[name].append(self._dumped(rig))
                return self._entries / added

            adds = in_turn(turns(list(contenders), sample), self._rounds)
        for key, text, samples in (("add", "added", adds), ("dump", "dumped", dumps)):
            name = f"{OURS}, {self._entries:,} flow entries {text}"
            aim = Aim(">=", 1)
            yield Row(f"flow_mods.{key}", GROUP, name, "1/s", samples[OURS], OVS, samples.get(OVS, []), aim, missing)

    def _dumped(self, rig: Rig) -> float:
        start = time.perf_counter()
        dump = rig.switch.ofctl("dump-flows")
        seconds = time.perf_counter() - start
        found = dump.count("nw_dst=")
        if found != self._entries:
            raise BenchError(f"{rig.name}: {found:,} of {self._entries:,} flow entries are in the dump")
        return self._entries / seconds
