"""What every test gets: ``vectors`` importable, Hypothesis profiles, the policy for tests that need root, and a guard.

Invariant: a run leaves the machine as it found it, or fails and says what it left. With CI=true no test passes by being
skipped for want of rights, and leftovers of any kind fail the run; elsewhere other programs may make interfaces meanwhile,
so only processes (which carry a mark) fail it, and the rest is a warning.
"""

from __future__ import annotations

import gc
import glob
import os
import shutil
import signal
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

IN_CI = os.environ.get("CI") == "true"

# Deadlines measure the machine, not the code. CI draws the same examples every time, so that a failure there can be had again.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "thorough", deadline=None, print_blob=True, max_examples=5000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "default"))


# ---- tests that need root

_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 12, 21, 39


def _missing_rights() -> str:
    """Why tests marked ``root`` cannot run here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root: sudo make test"
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    wanted = {"NET_ADMIN": _CAP_NET_ADMIN, "SYS_ADMIN": _CAP_SYS_ADMIN, "BPF": _CAP_BPF}
    missing = [name for name, bit in wanted.items() if not effective >> bit & 1]
    return f"needs the capabilities {', '.join(missing)}" if missing else ""


def _interrupt(number: int, _: FrameType | None) -> None:
    """End the run as Ctrl-C does: fixtures take away what they made. Asked twice, nothing is cut off."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def pytest_configure(config: pytest.Config) -> None:
    # Bytecode is kept from run to run, where pytest keeps what it remembers; the machine's own cache is left alone.
    if config.pluginmanager.has_plugin("cacheprovider") and config.cache is not None:
        directory = config.cache.mkdir("ofswitch") / "bytecode"
        if directory.exists() and directory.stat().st_uid != os.geteuid():
            shutil.rmtree(directory)  # an earlier run's, with other rights: we would not use it
        os.environ["CACHE_DIRECTORY"] = str(directory)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is signal.SIG_DFL:
            signal.signal(ending, _interrupt)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and (reason := _missing_rights()):
        if IN_CI:
            pytest.fail(f"{reason}; in CI that is a failure, not a skip", pytrace=False)
        pytest.skip(reason)


# ---- the guard

_MARK = "OFSWITCH_TEST_RUN"
_KEPT_DESCRIPTORS = 64  # what libraries open once and keep
_OF_MODULES = {"erspan0", "gre0", "gretap0", "ip6gre0", "ip6gretap0"}
"""Interfaces that the kernel makes when it loads the modules of tunnels, and takes away with them only."""
_SETTLE_SECONDS = 60.0 if IN_CI else 2.0  # the kernel takes namespaces and programs apart some time after the last user has gone


def _entries(directory: str) -> set[str]:
    return set(os.listdir(directory)) if os.path.isdir(directory) else set()


def _held_programs() -> set[int]:
    """Programs that some process holds open: they go when it does. A process that is left behind is reported by itself."""
    held = set()
    for path in glob.iglob("/proc/[0-9]*/fdinfo/*"):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        held |= {int(line.split()[1]) for line in text.splitlines() if line.startswith("prog_id:")}
    return held


def _programs() -> set[str]:
    if os.geteuid() != 0:
        return set()
    from appliance.datapath import programs

    held = _held_programs()
    return {f"{program.name} (id {program.id})" for program in programs.loaded() if program.id not in held}


def _processes(mark: str) -> set[str]:
    """Live processes started, however far down, by the run with this mark; not this one."""
    wanted = f"{_MARK}={mark}".encode()
    found = set()
    for entry in _entries("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            if wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.add(f"{entry}: {command.strip()[:120]}")
        except OSError:
            continue
    return found


def _snapshot(mark: str) -> dict[str, set[str]]:
    return {
        "process": _processes(mark),
        "network namespace": _entries("/run/netns"),
        "interface": _entries("/sys/class/net") - _OF_MODULES,
        "pinned BPF object": _entries("/sys/fs/bpf"),
        "BPF program": _programs(),
    }


def _descriptors() -> int:
    """How many this process has open, that nobody can take for a leak because they only wait to be collected."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _left(before: dict[str, set[str]], mark: str) -> dict[str, set[str]]:
    return {kind: names - before[kind] for kind, names in _snapshot(mark).items() if names - before[kind]}


@pytest.fixture(scope="session", autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare namespaces, interfaces, BPF programs and processes before and after the run."""
    if hasattr(request.config, "workerinput"):  # a worker of pytest-xdist: its siblings' things are not its own
        yield
        return
    mark = uuid.uuid4().hex
    os.environ[_MARK] = mark
    before, descriptors = _snapshot(mark), _descriptors()
    yield
    if (leaked := _descriptors() - descriptors) > _KEPT_DESCRIPTORS:
        pytest.fail(f"the run left {leaked} descriptors open", pytrace=False)
    end = time.monotonic() + _SETTLE_SECONDS
    while (left := _left(before, mark)) and time.monotonic() < end:
        time.sleep(0.1)
    if not left:
        return
    text = "the run left behind: " + "; ".join(f"{kind} {', '.join(sorted(names))}" for kind, names in left.items())
    if IN_CI or "process" in left:
        pytest.fail(text, pytrace=False)
    warnings.warn(text, stacklevel=1)
