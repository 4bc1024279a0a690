"""Processes that have much to take away when they end, and are given the time for it, also when the test is interrupted."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

END_SECONDS = 60.0


def ended(process: subprocess.Popen[str]) -> None:
    """SIGTERM if it still runs, and SIGKILL if that does not help."""
    if process.poll() is None:
        process.terminate()
        try:
            process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.communicate()


def run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, which gives a process a quarter of a second when it is interrupted itself."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        ended(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
