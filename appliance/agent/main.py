"""Runs one switch on this machine: builds the fast path, the view of the interfaces and the agent, and stops them on a signal.

Invariant: whichever way it ends, short of SIGKILL, no program of ours is left on an interface.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable

from appliance.agent.agent import Agent, AgentError
from appliance.agent.control import ControlSocketError
from appliance.agent.green import spawn, wait_readable
from appliance.agent.links import KernelLinks
from appliance.config import Config
from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathError
from appliance.datapath.loader import Sizes

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(config: Config, ready: Callable[[], None] | None = None) -> None:
    """Be the switch until a signal (STOPPING_SIGNALS) or the command ``stop`` comes. ``ready`` is called once it forwards.

    To be called in the main thread. Raises AgentError, with a text for the user, if the switch cannot start.
    """
    try:
        datapath = BpfDatapath(Sizes(megaflows=_room_for(config.max_megaflows)))
    except DatapathError as error:
        raise AgentError(str(error)) from error
    try:
        agent = Agent(config, datapath, KernelLinks())
    except BaseException:
        datapath.close()
        raise
    restore = stop_on_signals(agent.stop)
    try:
        agent.run(ready)
    except ControlSocketError as error:
        raise AgentError(str(error)) from error
    finally:
        restore()


def _room_for(megaflows: int) -> int:
    """Slots of the fast path's table: a power of two."""
    return 1 << (megaflows - 1).bit_length()


def stop_on_signals(stop: Callable[[], None]) -> Callable[[], None]:
    """Call ``stop`` in a greenlet when a signal comes; returns what undoes that.

    The signal's number comes through a pipe: a handler alone would not end eventlet's wait, which Python takes up again.
    """
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in STOPPING_SIGNALS}
    before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        wait_readable(woken.fileno())
        name = signal.Signals(woken.recv(1)[0]).name
        logging.getLogger("ofswitch.agent").info("%s: stopping", name)
        stop()

    waiting = spawn(wait)

    def restore() -> None:
        waiting.kill()
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        woken.close()
        wake.close()

    return restore
