"""Taking the connections that come to a listening socket.

Invariant: a connection that cannot be taken, for want of file descriptors or memory, waits in the kernel, which keeps the listener
readable. So the next try comes after a pause; and what is wrong is in the log once, however long it lasts.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from appliance.agent.green import sleep, wait_readable

LOG = logging.getLogger("ofswitch.agent")

RETRY_SECONDS = 0.2


def accept_all(listener: socket.socket, name: str, begin: Callable[[socket.socket, Any], None]) -> None:
    """Hand each connected socket, with the address of who connected, to ``begin``, which must not wait. Never returns.

    The listener must not block; ``name`` is for the log.
    """
    refused = False
    while True:
        wait_readable(listener.fileno())
        try:
            connected, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue  # it has gone again
        except OSError as error:
            if not refused:
                LOG.warning("%s: no connection can be taken now: %s; they wait", name, error.strerror)
            refused = True
            sleep(RETRY_SECONDS)
            continue
        if refused:
            LOG.info("%s: connections are taken again", name)
        refused = False
        begin(connected, address)
