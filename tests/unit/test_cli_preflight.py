"""What is said on a machine where BPF is not permitted, and what to grant."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from appliance.cli import preflight
from appliance.cli.preflight import missing_capabilities, problems

NET_ADMIN, NET_RAW, SYS_ADMIN, PERFMON, BPF = 1 << 12, 1 << 13, 1 << 21, 1 << 38, 1 << 39
ENOUGH = NET_ADMIN | NET_RAW | PERFMON | BPF


def ok() -> None:
    return None


def refuses(code: int) -> Callable[[], None]:
    def load() -> None:
        raise OSError(code, "words")

    return load


def found(**what: object) -> list[str]:
    given = {"release": "6.1.0-18-amd64", "capabilities": ENOUGH, "load": ok, "locked": "none", "has_bcc": True, **what}
    return problems(**given)  # type: ignore[arg-type]


def test_nothing_is_wrong() -> None:
    assert found() == []
    assert found(capabilities=NET_ADMIN | NET_RAW | SYS_ADMIN) == []
    assert found(release="5.15.0-generic") == []


@pytest.mark.parametrize(
    ("has", "missing"),
    [
        (0, ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"]),
        (ENOUGH & ~BPF, ["BPF"]),
        (ENOUGH & ~PERFMON, ["PERFMON"]),
        (SYS_ADMIN, ["NET_ADMIN", "NET_RAW"]),
        (ENOUGH, []),
    ],
)
def test_missing_capabilities(has: int, missing: list[str]) -> None:
    assert missing_capabilities(has) == missing


def test_what_to_grant_is_said_and_the_kernel_is_not_asked() -> None:
    (text,) = found(capabilities=0, load=refuses(errno.EPERM))
    assert text.startswith("not permitted: BPF, PERFMON, NET_ADMIN, NET_RAW missing; run it as root (sudo), or grant")
    assert "--cap-add BPF" in text
    assert "AmbientCapabilities=CAP_BPF" in text


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"load": refuses(errno.EPERM)}, "seccomp"),
        ({"load": refuses(errno.EACCES)}, "seccomp"),
        ({"load": refuses(errno.EPERM), "locked": "confidentiality"}, "the kernel is locked down (confidentiality)"),
        ({"load": refuses(errno.ENOSYS)}, "this kernel has no BPF"),
        ({"load": refuses(errno.ENOMEM)}, "the kernel refuses a trivial BPF program: words"),
        ({"release": "5.14.21"}, "Linux 5.14.21 is too old; 5.15 or later is needed"),
        ({"release": "4.19"}, "Linux 4.19 is too old"),
        ({"has_bcc": False}, "apt-get install python3-bpfcc"),
    ],
)
def test_each_problem_says_what_to_do(what: dict[str, object], words: str) -> None:
    (text,) = found(**what)
    assert words in text


def test_several_problems_are_told_at_once() -> None:
    assert len(found(has_bcc=False, release="5.4.0", capabilities=0)) == 3


def test_this_machine_is_read() -> None:
    assert preflight.effective_capabilities() >= 0
    assert preflight.lockdown() in ("none", "integrity", "confidentiality")
