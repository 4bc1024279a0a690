"""Bytecode on disk, so that only a first start compiles: one file for each key.

Invariant: what is read was written whole, by us or by root, under this very key, with the compiler that is installed now; anything
else is as good as absent. A cache that cannot be read or written costs time, and is never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

from appliance.datapath.bytecode import Bytecode, Tool

LOG = logging.getLogger("ofswitch.bytecode")

_SUFFIX = ".bytecode"
_KEPT = 32
"""Files: those used last. One has some 250 KB."""
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def default_directory() -> Path:
    """$CACHE_DIRECTORY, which systemd sets for a service; root's is /var/cache/ofswitch, another user's is where XDG says."""
    given = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/ofswitch")
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ofswitch"


class BytecodeCache:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, key: str) -> Bytecode | None:
        """None if there is none that may be used; the log says why one is not."""
        path = self.path(key)
        try:
            fault = _untrusted(os.stat(self.directory))
            if not fault:
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                    fault = _untrusted(os.fstat(file.fileno()))
                    head, _, text = file.read().partition(b"\n")
                    with contextlib.suppress(OSError):
                        os.utime(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            fault = error.strerror or "cannot be read"
        if not fault and head != _head(key, text):
            fault = "it is damaged"
        try:
            found = None if fault else Bytecode.read(text)
        except ValueError as error:
            found, fault = None, str(error)
        if found is not None and not all(map(_unchanged, found.tools)):
            LOG.info("the compiler has changed since %s was written", path)
            return None
        if fault:
            LOG.warning("%s is not used: %s", path, fault)
        return found

    def store(self, key: str, text: bytes) -> None:
        """``text`` is what ``Bytecode.read`` takes."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            fault = _untrusted(os.stat(self.directory))
            if fault:
                LOG.warning("nothing is kept in %s: %s", self.directory, fault)
                return
            with tempfile.NamedTemporaryFile(dir=self.directory, prefix="new.", delete=False) as file:
                try:
                    file.write(_head(key, text) + b"\n" + text)
                    file.flush()
                    os.replace(file.name, self.path(key))
                except BaseException:
                    os.unlink(file.name)
                    raise
            self._forget_old()
        except OSError as error:
            LOG.info("nothing is kept in %s, so each start compiles: %s", self.directory, error.strerror)

    def path(self, key: str) -> Path:
        return self.directory / (key + _SUFFIX)

    def _forget_old(self) -> None:
        used = {path: path.lstat().st_mtime for path in self.directory.iterdir()}
        for path in sorted(used, key=lambda path: -used[path])[_KEPT:]:
            path.unlink(missing_ok=True)


def _head(key: str, text: bytes) -> bytes:
    """The first line of a file."""
    return f"ofswitch bytecode {key} {hashlib.sha256(text).hexdigest()}".encode()


def _untrusted(status: os.stat_result) -> str:
    """Why a file or directory is not to be trusted; empty if it is."""
    if status.st_uid not in (0, os.geteuid()):
        return f"it is user {status.st_uid}'s"
    return "others may write there" if status.st_mode & _OTHERS_MAY_WRITE else ""


def _unchanged(tool: Tool) -> bool:
    try:
        status = os.stat(tool.path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (tool.size, tool.changed_ns)
