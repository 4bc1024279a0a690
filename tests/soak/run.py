"""A long random life of the switch: `make soak`, or

    python tests/soak/run.py --minutes 60 --seed 7
    python tests/soak/run.py --seed 7 --rounds 12

The switch runs as its user runs it, with hosts, controllers and eBPF. In each round its tables, ports and controllers change at
random, it is flooded, asked, killed; and two of its hosts talk all the while by entries that nobody touches. Then it is checked
(``life.Life``): they have lost nothing; random packets go and count as an interpreter of the tables says; nothing grows.

Prints a line a round, and writes what it saw to build/soak.json (--output). A failure ends it, with all that happened in its round:
the same seed brings it back.
Exit status: 0 if all held, 1 if not.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from soak.life import Life, Round  # noqa: E402

OUTPUT = ROOT / "build" / "soak.json"
HOOKS = ("auto", "tc", "xdp")


def main() -> int:
    arguments = _arguments()
    if os.geteuid() != 0:
        print("network namespaces and BPF need root: sudo make soak", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    length = f"{arguments.rounds} rounds" if arguments.rounds else f"{arguments.minutes:g} minutes"
    print(f"seed {seed}, {length}, hook {arguments.hook}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ofswitch-soak-") as folder:
        rounds, failures = live(seed, Path(folder), arguments.hook, arguments.minutes, arguments.rounds)
        if failures:
            logs = sorted(Path(folder).glob("agent-*/*.log"), key=lambda log: log.stat().st_mtime)
            print("the end of the agent's log:", *logs[-1].read_text(errors="replace").splitlines()[-20:], sep="\n  ")
    summary = _summary(rounds)
    print(*(f"{name}: {value}" for name, value in summary.items()), sep="\n")
    about = {"seed": seed, "hook": arguments.hook, "date": datetime.date.today().isoformat(), "kernel": platform.release()}
    _write(arguments.output, {**about, **summary, "failures": failures, "rounds": [asdict(item) for item in rounds]})
    again = f"python tests/soak/run.py --seed {seed} --hook {arguments.hook} --rounds {len(rounds)}"
    print(f"failed; again: {again}" if failures else "all held")
    return 1 if failures else 0


def live(seed: int, folder: Path, hook: str, minutes: float, most: int | None) -> tuple[list[Round], list[str]]:
    """Rounds, until the time is over or there have been so many, or one has failed; and what did not hold."""
    rounds: list[Round] = []
    end = time.monotonic() + 60 * minutes
    with Life(seed, folder, hook) as life:
        while len(rounds) < most if most else time.monotonic() < end:
            rounds.append(life.round(len(rounds) + 1))
            print(_line(rounds[-1]), flush=True)
            if rounds[-1].failures:
                print("what happened:", *rounds[-1].events, sep="\n  ")
                print("what does not hold:", *rounds[-1].failures, sep="\n  ", flush=True)
                return rounds, rounds[-1].failures
        failures = life.end()
    if failures:
        print("what does not hold at the end:", *failures, sep="\n  ")
    return rounds, failures


def _line(seen: Round) -> str:
    held = seen.resources
    resources = "" if held is None else f"  {held.resident:.0f} MB, {held.descriptors} descriptors"
    return (
        f"round {seen.number:3}  {seen.seconds:5.1f} s  {len(seen.events):2} events  {seen.streamed:6,} packets of streams"
        f"  {seen.probes:3} probes, {seen.probes_by_fast_path:3} by the fast path"
        f"  {seen.entries:3} entries, {seen.megaflows:4} megaflows{resources}  {'FAILED' if seen.failures else 'ok'}"
    )


def _summary(rounds: list[Round]) -> dict[str, Any]:
    held = [item.resources for item in rounds if item.resources is not None]
    return {
        "rounds": len(rounds),
        "seconds": round(sum(item.seconds for item in rounds), 1),
        "events": sum(len(item.events) for item in rounds),
        "agents killed": sum("is killed" in event for item in rounds for event in item.events),
        "packets that the kernel had no room for": sum(item.dropped_by_kernel for item in rounds),
        "rounds in which the agent got no CPU for too long": sum(item.is_starved for item in rounds),
        "packets of streams": sum(item.streamed for item in rounds),
        "packets of talking hosts that came up": sum(item.punted for item in rounds),
        "most of them in a round": max(item.punted for item in rounds),
        "probes": sum(item.probes for item in rounds),
        "probes by the fast path": sum(item.probes_by_fast_path for item in rounds),
        "resident MB, least to most": [min(item.resident for item in held), max(item.resident for item in held)] if held else [],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="how long (default: 10)")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds, however long they take")
    parser.add_argument("--seed", type=int, metavar="N", help="of an earlier run, to have it again (default: a new one)")
    parser.add_argument("--hook", choices=HOOKS, default="auto", help="of all ports (default: auto, which is TC here)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help=f"default: {OUTPUT.relative_to(ROOT)}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
