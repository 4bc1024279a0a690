"""Packages of a Debian suite, whatever this machine runs: fetched by apt into directories of ours, and never installed.

Invariant: apt checks signatures and sums as ever (with Debian's own keyring), and this machine's package lists are left alone.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

MIRROR = os.environ.get("OFSWITCH_DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"
_COMMAND_SECONDS = 900
_LAST_LINES = 15


class GuestError(Exception):
    """The guest cannot be made or run. The text says why and what to do."""


def command(*argv: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run it to its end; what it printed. Raises GuestError with its last lines."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
            env=environment,
        )
    except FileNotFoundError as error:
        raise GuestError(f"{words[0]} is not installed: sudo scripts/setup guest") from error
    except subprocess.TimeoutExpired as error:
        raise GuestError(f"{' '.join(words)}: not done after {_COMMAND_SECONDS} s") from error
    if done.returncode:
        last = "\n  ".join(done.stdout.strip().splitlines()[-_LAST_LINES:])
        raise GuestError(f"{' '.join(words[:6])}: status {done.returncode}\n  {last}")
    return done.stdout


def fetched(*argv: str | Path) -> str:
    """``command``, for what needs the network."""
    try:
        return command(*argv)
    except GuestError as error:
        raise GuestError(
            f"{error}\nThe guest is made from packages of {MIRROR}, once; without a network, only one that was made before can be "
            "used (OFSWITCH_DEBIAN_MIRROR names another mirror)"
        ) from error


class Suite:
    """``name`` is bookworm, trixie-backports …; apt's files for it are kept in ``directory``."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        if not KEYRING.exists():
            raise GuestError(f"{KEYRING} is missing: sudo scripts/setup guest")
        for part in ("lists/partial", "cache/archives/partial"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        sources = directory / "sources.list"
        sources.write_text(f"deb [arch={ARCHITECTURE} signed-by={KEYRING}] {MIRROR} {name} main\n")
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Dir::Cache": directory / "cache",
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Lists": directory / "lists",
            "Dir::State::status": directory / "status",
        }
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        fetched("apt-get", *self._options, "-q", "update", "--error-on=any")

    def _field(self, package: str, field: str) -> str:
        text = command("apt-cache", *self._options, "show", "--no-all-versions", package)
        found = re.search(rf"^{field}: (.*)$", text, re.MULTILINE)
        return found[1] if found else ""

    def newest_kernel(self) -> list[str]:
        """The packages of the kernel that linux-image-amd64 stands for now: one, or since 7.x four of them."""
        found: list[str] = []
        waiting = [f"linux-image-{ARCHITECTURE}"]
        while waiting:
            dependencies = re.findall(r"linux-(?:base|binary|image|modules)-\d[^ ,]*", self._field(waiting.pop(), "Depends"))
            new = sorted({name for name in dependencies if name not in found})
            found += new
            waiting += new
        if not found:
            raise GuestError(f"{MIRROR} {self.name} has no linux-image-{ARCHITECTURE}")
        return found

    def unpack(self, packages: Iterable[str], where: Path) -> None:
        """Fetch them and lay their files under ``where``; their scripts do not run."""
        debs = where.with_name(f"{where.name}.debs")
        debs.mkdir(parents=True)
        where.mkdir(parents=True, exist_ok=True)
        here = os.getcwd()
        os.chdir(debs)  # apt-get download knows no other way to say where to
        try:
            fetched("apt-get", *self._options, "-q", "download", *packages)
        finally:
            os.chdir(here)
        for deb in sorted(debs.glob("*.deb")):
            command("dpkg", "-x", deb, where)
