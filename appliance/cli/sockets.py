"""Which running switch a command means.

Invariant: never a guess: with several running and none named, the answer is their names.
"""

from __future__ import annotations

import socket
from pathlib import Path


class NoSwitch(Exception):  # noqa: N818  it is an answer, for the user
    """No switch is meant, or more than one could be; the text says which there are."""


def find_socket(name: str | None, control_socket: str | None, directory: str | None = None) -> str:
    """The control socket's path. Raises NoSwitch."""
    if control_socket is not None:
        return control_socket
    if directory is None:
        from appliance.config import RUN_DIRECTORY

        directory = RUN_DIRECTORY
    if name is not None:
        return f"{directory}/{name}.sock"
    running = [path for path in sorted(Path(directory).glob("*.sock")) if _answers(path)]
    if not running:
        raise NoSwitch(f"no switch is running (no control socket in {directory} answers); start one: ofswitch run --help")
    if len(running) > 1:
        raise NoSwitch(f"several switches are running; name one: {', '.join(path.stem for path in running)}")
    return str(running[0])


def _answers(path: Path) -> bool:
    """Somebody listens there; a socket that we may not open counts, so that the reason is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except PermissionError:
            return True
        except OSError:
            return False
    return True
