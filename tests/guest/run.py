"""Other kernels than this machine's, in guests: ``make guest-test`` and ``make bench-guest``.

    run.py test  [--suite NAME ...] [--jobs N] [--newest] [--output DIRECTORY] [-- PYTEST ARGUMENTS]
    run.py bench [--suite NAME ...] [--jobs N] [--newest] [--output DIRECTORY] [--quick]
    run.py shell [--suite NAME] [--counted] -- COMMAND

``test`` runs tests/bpf, and what there is of tunnels between switches, on each kernel and writes DIRECTORY/guest-tests.json.
``bench`` counts the instructions that a packet takes by our fast path and by Open vSwitch's kernel module
(tests/bench/instructions.py) and writes DIRECTORY/instructions.json. The kernels are those of Debian 12 and 13 (13's for tests
only), and the newest that Debian backports. Needs root; and the network, the first time.

Invariant: it says of every kernel what came of it, and fails if one of them failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "bench")]

import readme  # noqa: E402
from debian import GuestError  # noqa: E402
from image import Cache  # noqa: E402
from machine import Clock, Done, Job, has_kvm, run  # noqa: E402
from report import commit, console, footer, table  # noqa: E402
from results import Row  # noqa: E402
from tested import Tested, read_report  # noqa: E402

SUITES = {"test": ("bookworm", "trixie", "trixie-backports"), "bench": ("bookworm", "trixie-backports"), "shell": ("bookworm",)}
"""Debian 13's is for its verifier, which refuses what older and newer ones take."""
TESTS = ("/source/tests/bpf", *(f"/source/tests/system/test_{name}.py" for name in ("tunnels", "tunnel_ports", "tunnel_peers")))
"""The last for Geneve and GRE, which not every kernel has."""
SOURCES = ("appliance", "bpf_prog", "configs", "ryu_apps", "tests")
RESULTS = ROOT / "bench" / "results"
TEST_SECONDS = 3600.0
BENCH_SECONDS = 2400.0
_TEST_TIMEOUT = 1800
"""Of a single test: an emulated guest is some twenty times slower, and compiles the programs."""
_PYTEST = (
    f"CI=true HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis python3 -m pytest --rootdir=/source -c /source/pyproject.toml -q "
    f"-p no:cacheprovider --timeout={_TEST_TIMEOUT} --junitxml=/out/tests.xml"
)
_INSTRUCTIONS = "modprobe openvswitch && python3 /source/tests/bench/instructions.py /out/instructions.json"


class Guests:
    """Kernels to run something on, ``at_a_time`` of them."""

    def __init__(self, suites: Sequence[str], at_a_time: int, *, newest: bool = False) -> None:
        """Makes what is missing. Raises GuestError."""
        cache = Cache(say=say)
        self._root = cache.root()
        self.kernels = [cache.kernel(suite, newest=newest) for suite in suites]
        self._at_a_time = at_a_time

    def run(self, command: str, timeout: float, clock: Clock = Clock.REAL) -> Iterator[Done]:
        """Run a command on each, all with one copy of the sources. While one is looked at, what it left is in its job's ``out``."""
        with tempfile.TemporaryDirectory(prefix="guest-") as directory:
            source = Path(directory, "source")
            for name in SOURCES:
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", source)
            jobs = []
            for kernel in self.kernels:
                out = Path(directory, kernel.version)
                out.mkdir()
                jobs.append(Job(kernel, command, source, out, timeout, clock))
            yield from run(self._root, jobs, self._at_a_time, _Progress())


_STARTED = time.monotonic()
_COMMIT = commit()
"""Of the sources that guests get; it may be another when they have ended."""


def say(text: str) -> None:
    print(f"guest: {time.monotonic() - _STARTED:4.0f} s  {text}", flush=True)


class _Progress:
    """Says a line a minute of each guest."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, job: Job, line: str) -> None:
        now, version = time.monotonic(), job.kernel.version
        if line and now - self._told.setdefault(version, now) > 60:
            self._told[version] = now
            say(f"{version}: {line[-100:]}")


# ── tests ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test(guests: Guests, arguments: Sequence[str]) -> list[Tested]:
    words = shlex.join(arguments or TESTS)
    results = []
    for done in guests.run(f"{_PYTEST} {words}", TEST_SECONDS):
        kernel = done.job.kernel
        result = Tested(kernel.suite, kernel.version, error=done.error)
        read_report(done.job.out / "tests.xml", result)
        if result.failures:  # then the status says no more than they do
            result.error = ""
        say(f"{kernel.version}: {result.passed} passed, {result.failed} failed, {result.skipped} skipped, {result.seconds:.0f} s")
        results.append(result)
    return sorted(results, key=lambda result: [kernel.suite for kernel in guests.kernels].index(result.suite))


def report_tests(results: Sequence[Tested], directory: Path | None) -> int:
    """The exit status."""
    for result in results:
        for text in filter(None, (*result.failures, result.error)):
            print(f"{result.kernel}: {text}", file=sys.stderr)
    if directory is not None:
        write(
            directory / "guest-tests.json",
            {"tests": "tests/bpf and tunnels", "kernels": [{**asdict(result), "ok": result.ok} for result in results]},
        )
    print(f"{sum(result.passed for result in results)} passed, {sum(result.failed for result in results)} failed")
    return 0 if all(result.ok for result in results) else 1


# ── instructions ───────────────────────────────────────────────────────────────────────────────────────────────────────
def bench(guests: Guests, *, quick: bool) -> list[dict[str, Any]]:
    """Raises GuestError."""
    results = {}
    for done in guests.run(_INSTRUCTIONS + (" --quick" if quick else ""), BENCH_SECONDS, Clock.COUNTED):
        if done.error:
            raise GuestError(done.error)
        say(f"{done.job.kernel.version}: counted")
        results[done.job.kernel.suite] = json.loads((done.job.out / "instructions.json").read_text())
    return [results[kernel.suite] for kernel in guests.kernels]


def report_bench(results: Sequence[dict[str, Any]], directory: Path | None) -> int:
    to = console()
    for result in results:
        rows = [Row.from_json(row) for row in result["rows"]]
        to.print(table(rows))
        footer(to, rows)
        to.print(f"Linux {result['kernel']} in a guest, Open vSwitch {result['open_vswitch']}\n", highlight=False)
    if directory is not None:
        write(directory / "instructions.json", {"guests": list(results)})
    return 0


def write(path: Path, what: dict[str, Any]) -> None:
    about = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host_kernel": platform.release(),
        **_COMMIT,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, **what}, indent=1, ensure_ascii=False) + "\n")
    written = [path, *(readme.refresh() if path.parent == RESULTS else ())]
    say(f"written: {', '.join(map(str, written))}")


# ── the command line ───────────────────────────────────────────────────────────────────────────────────────────────────
def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog="After --: for test, pytest's arguments; for shell, the command."
    )
    parser.add_argument("what", choices=("test", "bench", "shell"))
    parser.add_argument("--suite", nargs="+", help=f"of Debian (default: for test {' '.join(SUITES['test'])})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="guests at a time (default: one a CPU)")
    parser.add_argument("--newest", action="store_true", help="fetch the suites' kernels again")
    parser.add_argument("--quick", action="store_true", help="bench: fewer packets; written only if a directory is given")
    parser.add_argument("--counted", action="store_true", help="shell: clocks count instructions")
    parser.add_argument("--output", type=Path, help=f"where to write (default: {RESULTS.relative_to(ROOT)})")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return parser.parse_args(sys.argv[1:end], argparse.Namespace(words=sys.argv[end + 1 :]))


def main() -> int:
    given = arguments()
    if os.geteuid() != 0:
        print("the guests need root, to be made: use sudo", file=sys.stderr)
        return 1
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        suites = tuple(given.suite or SUITES[given.what])
        guests = Guests(suites[:1] if given.what == "shell" else suites, given.jobs, newest=given.newest)
        whole = not given.words and not given.quick
        directory = given.output or (RESULTS if whole and suites == SUITES[given.what] else None)
        if given.what == "test":
            say(f"tests on {', '.join(kernel.version for kernel in guests.kernels)}{'' if has_kvm() else ', emulated: minutes'}")
            return report_tests(test(guests, given.words), directory)
        if given.what == "bench":
            return report_bench(bench(guests, quick=given.quick), directory)
        for done in guests.run(" ".join(given.words), TEST_SECONDS, Clock.COUNTED if given.counted else Clock.REAL):
            print(done.output, done.error, sep="")
            return 1 if done.error else 0
    except (GuestError, subprocess.SubprocessError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
