"""Guests: each boots, runs one command as root with a directory to read at /source and one to write at /out, switches off.

It is QEMU's, by KVM where this machine can, else by its software emulation, some twenty times slower. With ``COUNTED`` it is always
emulated, one CPU, and each instruction takes one nanosecond of the guest's time: its clocks count instructions.

Invariant: a guest has no network and writes nothing but its /out; it is gone when ``run`` ends, however it does.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from debian import GuestError
from image import Kernel

MEMORY_MB = 2048
QEMU = "qemu-system-x86_64"
_POLL_SECONDS = 0.2
_LAST_BYTES = 3000

# Without these features a kernel copies and clears by loops of moves. With them it would use instructions that loop by themselves;
# QEMU counts each of their turns, a byte, as an instruction, where a processor goes by cache lines.
_NO_STRING_LOOPS = "clearcpuid=rep_good,erms,fsrm"
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 nokaslr net.ifnames=0 random.trust_cpu=on tsc=reliable clocksource=tsc no_timer_check"
)


class Clock(Enum):
    REAL = "real"
    COUNTED = "counted"


@dataclass(frozen=True, slots=True)
class Job:
    """A shell command for a guest, which sees ``source`` at /source and ``out`` at /out; it may take ``timeout`` seconds in all."""

    kernel: Kernel
    command: str
    source: Path
    out: Path
    timeout: float
    clock: Clock = Clock.REAL


@dataclass(frozen=True, slots=True)
class Done:
    """``output`` is what the command printed; ``error`` says why, if it did not end with status 0."""

    job: Job
    output: str
    seconds: float
    error: str = ""


def has_kvm() -> bool:
    """There may be a /dev/kvm where no guest would ever start: the processor must say that it can."""
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and not {"vmx", "svm"}.isdisjoint(flags)


def _accelerator(clock: Clock) -> list[str]:
    if clock is Clock.COUNTED:
        return [
            "-accel",
            "tcg,thread=single,tb-size=512",
            "-icount",
            "shift=0,align=off,sleep=on",
            "-rtc",
            "clock=vm",
            "-cpu",
            "max",
        ]
    if has_kvm():
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,tb-size=512", "-cpu", "max"]


class _Guest:
    """A running one. Raises GuestError if it cannot be started."""

    def __init__(self, root: Path, job: Job) -> None:
        self.job = job
        out = job.out
        (out / "command").write_text(job.command + "\n")
        for name in ("status", "output"):
            (out / name).unlink(missing_ok=True)
        counted = job.clock is Clock.COUNTED
        arguments = f"{_KERNEL_ARGUMENTS} {_NO_STRING_LOOPS} init_on_alloc=0" if counted else _KERNEL_ARGUMENTS
        argv = [
            *(QEMU, *_accelerator(job.clock), "-smp", "1", "-m", str(MEMORY_MB), "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none", "-monitor", "none", "-serial", "stdio", "-seed", "1"),
            *("-kernel", str(job.kernel.image), "-initrd", str(job.kernel.initramfs), "-append", arguments),
            *("-drive", f"file={root},format=raw,if=none,id=root,snapshot=on", "-device", "virtio-blk-pci,drive=root"),
            *("-virtfs", f"local,path={job.source},mount_tag=source,security_model=none,id=source,readonly=on,multidevs=remap"),
            *("-virtfs", f"local,path={out},mount_tag=out,security_model=none,id=out"),
        ]
        self._start = time.monotonic()
        self._console = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self._console, stderr=self._console)
        except FileNotFoundError as error:
            self._console.close()
            raise GuestError(f"{QEMU} is not installed: sudo scripts/setup guest") from error

    def done(self) -> Done | None:
        """None while it runs."""
        seconds = time.monotonic() - self._start
        late = self._process.poll() is None and seconds > self.job.timeout
        if self._process.poll() is None and not late:
            return None
        output, status = self._read("output"), self._read("status").strip()
        error = f"the command ended with status {status}" if status != "0" else ""
        if not status:
            why = (
                f"was not done after {seconds:.0f} s"
                if late
                else f"ended (status {self._process.returncode}) before its command did"
            )
            self._console.seek(0)
            error = f"the guest {why}\n{self._console.read().decode(errors='replace')[-_LAST_BYTES:]}"
        if error:
            error = f"{self.job.kernel.version}: {error}\n{output[-_LAST_BYTES:]}".rstrip()
        return Done(self.job, output, seconds, error)

    def last_line(self) -> str:
        lines = self._read("output")[-400:].splitlines()
        return lines[-1] if lines else ""

    def _read(self, name: str) -> str:
        path = self.job.out / name
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._console.close()


def run(
    root: Path, jobs: Sequence[Job], at_a_time: int = 1, progress: Callable[[Job, str], None] = lambda job, line: None
) -> Iterator[Done]:
    """Run the jobs, each in a guest of its own; each as it is done. ``progress`` gets the last line of its output, now and then.
    Raises GuestError if guests cannot be started here.
    """
    if platform.machine() != "x86_64":
        raise GuestError(f"the guest is one of x86-64; this machine is {platform.machine()}")
    waiting = list(jobs)
    with ExitStack() as stack:
        running: list[_Guest] = []
        while waiting or running:
            while waiting and len(running) < at_a_time:
                guest = _Guest(root, waiting.pop(0))
                stack.callback(guest.close)
                running.append(guest)
            time.sleep(_POLL_SECONDS)
            for guest in list(running):
                done = guest.done()
                if done is None:
                    progress(guest.job, guest.last_line())
                else:
                    running.remove(guest)
                    guest.close()
                    yield done
