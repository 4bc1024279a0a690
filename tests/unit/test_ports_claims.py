"""Claims on interfaces and names: one switch has each, until it gives it back or its process ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from appliance.ports import Claims, PortError

WHAT = f"interface/test-{os.getpid()}"
HOLDER = """
import sys
from appliance.ports import Claims
claims = Claims()
claims.take(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_one_switch_has_it() -> None:
    ours, theirs = Claims(), Claims()
    ours.take(WHAT)
    ours.take(WHAT)
    with pytest.raises(PortError, match="another switch that runs here has it"):
        theirs.take(WHAT)
    theirs.release(WHAT)
    theirs.take(WHAT + "x")
    ours.release(WHAT)
    theirs.take(WHAT)
    theirs.close()
    ours.take(WHAT)
    ours.close()


def test_it_goes_with_its_process_whatever_ends_that() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, WHAT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        ours = Claims()
        with pytest.raises(PortError):
            ours.take(WHAT)
        holder.kill()
        holder.wait()
        ours.take(WHAT)
        ours.close()
