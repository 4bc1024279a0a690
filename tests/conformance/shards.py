"""Several shards side by side: starts their processes, and yields their outcomes as they come.

Invariant: leaving the generator, also early, ends every process that it started; a case with no outcome by then is `not run`.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from conformance.cases import Case, split
from conformance.outcome import NOT_RUN, Outcome
from conformance.shard import Plan
from conformance.targets import ROOT

_STOP_SECONDS = 20.0


def run(cases: Sequence[Case], plan: Plan, number: int) -> Iterator[Outcome]:
    """Run cases in at most ``number`` shards; ``plan`` says how, its own ``cases`` are not looked at."""
    shares = split(cases, number)
    arrived: queue.Queue[Outcome | None] = queue.Queue()
    processes = [_start(replace(plan, cases=[case.name for case in share])) for share in shares]
    missing = {case.name for case in cases}
    try:
        for process in processes:
            threading.Thread(target=_read, args=(process, arrived), daemon=True).start()
        ended = 0
        while ended < len(processes):
            outcome = arrived.get()
            if outcome is None:
                ended += 1
                continue
            missing.discard(outcome.case)
            yield outcome
        codes = [process.wait() for process in processes]
        for name in sorted(missing):
            yield Outcome(name, NOT_RUN, f"the shards ended with {codes}")
    finally:
        for process in processes:
            _end(process)


def _start(plan: Plan) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "conformance.shard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for run.py, which ends the shards in order
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    assert process.stdin is not None  # because of the PIPE
    with process.stdin:
        process.stdin.write(plan.to_json())
    return process


def _read(process: subprocess.Popen[str], arrived: queue.Queue[Outcome | None]) -> None:
    assert process.stdout is not None  # because of the PIPE
    with process.stdout:
        for line in process.stdout:
            arrived.put(Outcome.from_json(line))
    arrived.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
