"""Run the Ryu switch tests that ship with os-ken against a switch: `make conformance`, or

    python tests/conformance/run.py --only match/ --jobs 4
    python tests/conformance/run.py --target ovs

A run of all cases puts its column into tests/conformance/results/of13.json and of13.md; one of some of them does so only where
--results says.
Exit status: 0 if every case passed (with --baseline: if none is worse than there), 1 if not, 2 if the cases could not be run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conformance import cases, results, shards  # noqa: E402
from conformance.outcome import NOT_RUN, PASSED, Outcome  # noqa: E402
from conformance.shard import Plan  # noqa: E402
from conformance.targets import TARGETS  # noqa: E402

RESULTS = ROOT / "tests" / "conformance" / "results"


def main() -> int:
    arguments = _arguments()
    folder = arguments.cases or cases.directory(arguments.version)
    everything = cases.load(folder)
    chosen = cases.select(everything, arguments.only, arguments.skip, arguments.kind)
    if arguments.list:
        for case in chosen:
            print(f"{case.name}\t{case.kind}\t{case.description}")
        return 0
    if not chosen:
        print("no case is called that: see --list", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("network namespaces and BPF need root: use sudo", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    target = TARGETS[arguments.target]
    pause = target.pause if arguments.pause is None else arguments.pause
    plan = Plan(
        version=arguments.version,
        folder=str(folder),
        target=arguments.target,
        cases=(),
        settle=arguments.settle,
        pause=pause,
        warm=arguments.warm,
        retries=arguments.retries,
        flags=tuple(arguments.target_flag),
    )
    start = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome in shards.run(chosen, plan, arguments.jobs):
            outcomes[outcome.case] = outcome
            if arguments.verbose:
                print(f"{outcome.verdict}: {outcome.case}  {outcome.reason}", flush=True)
            if len(outcomes) % 100 == 0:
                passed = sum(each.passed for each in outcomes.values())
                print(f"{len(outcomes)} of {len(chosen)}: {passed} passed, {time.monotonic() - start:.0f} s", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {len(outcomes)} of {len(chosen)} cases", file=sys.stderr)
        return 2
    again = sum(outcome.attempts > 1 and outcome.verdict == PASSED for outcome in outcomes.values())
    conditions = f"{target.version()}; {pause * 1000:.0f} ms between barrier reply and packet; {arguments.jobs} shards"
    conditions += "; caches warm" if arguments.warm else ""
    conditions += f"; {again} passed on a second try" if arguments.retries else ""
    column = results.Column(arguments.target, conditions, {case.name: outcomes[case.name] for case in chosen})
    print(f"\n{results.table(chosen, [column])}\n\n{results.failures(column)}\n{conditions}, {time.monotonic() - start:.0f} s")
    keep = arguments.results or (RESULTS if len(chosen) == len(everything) and not arguments.cases else None)
    before = results.read(arguments.baseline) if arguments.baseline else {}
    if keep:
        print("written:", *results.write(keep, arguments.version, chosen, column))
    if any(outcome.verdict == NOT_RUN for outcome in outcomes.values()):
        return 2
    if arguments.target in before:
        worse = results.worse(before[arguments.target].outcomes, outcomes)
        print(*(f"worse than before: {name}" for name in worse), sep="\n")
        return 1 if worse else 0
    return 0 if all(outcome.passed for outcome in outcomes.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, default="ofswitch")
    parser.add_argument("--version", choices=("13",), default="13", help="of OpenFlow")
    parser.add_argument("--cases", type=Path, metavar="FOLDER", help="not os-ken's but one's own, in the same format")
    parser.add_argument(
        "--only", action="append", default=[], metavar="REGEX", help='cases with this in "name description"; repeatable'
    )
    parser.add_argument("--skip", action="append", default=[], metavar="REGEX", help="not these; repeatable")
    parser.add_argument("--kind", action="append", default=[], choices=cases.KINDS, help="only cases that expect this; repeatable")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="shards side by side (default: 2)")
    parser.add_argument("--retries", type=int, default=0, metavar="N", help="try a failed case again (default: 0)")
    parser.add_argument(
        "--pause", type=float, metavar="SECONDS", help="between barrier reply and packet (default: as the target needs)"
    )
    parser.add_argument(
        "--settle", type=float, default=1.0, metavar="SECONDS", help="for the counters of a table-miss (default: 1)"
    )
    parser.add_argument(
        "--target-flag", action="append", default=[], metavar="FLAG", help="for the target's command line; repeatable"
    )
    parser.add_argument("--warm", action="store_true", help="send each packet once before the one that counts, for caches to fill")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=f"default, of all cases: {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="a result file that this run must not be worse than")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument("--verbose", action="store_true", help="print every case and its reason")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
