"""Versions of the program and of what it stands on, without importing any of it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform


def _of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """None: not installed."""
    bcc = _of("bcc") or ("(unknown)" if importlib.util.find_spec("bcc") else None)
    return {
        "ofswitch": _of("ofswitch"),
        "OpenFlow": "1.3",
        "kernel": os.uname().release,
        "Python": platform.python_version(),
        "bcc": bcc,
        "os-ken": _of("os-ken"),
        "eventlet": _of("eventlet"),
        "pyroute2": _of("pyroute2"),
    }
