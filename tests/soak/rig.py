"""The switch and all that is around it: hosts, controllers, and the tables that it must have.

Invariant: ``tables`` are what the switch was told, whichever agent is running; ``until_quiet`` returns when it has done all of it.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from soak import checks, protected
from soak.controllers import Controllers
from soak.network import CHANGING, TALKING, Network
from soak.product import Product
from soak.starvation import Starvation
from soak.tables import Tables
from soak.talk import Talk
from support.waiting import SECONDS, until

FLOOD = Path(__file__).with_name("flood.py")


class Rig:
    """A context manager. ``hook`` is that of all ports: `tc`, `xdp` or `auto`."""

    def __init__(self, folder: Path, hook: str) -> None:
        self.network = Network()
        self.product = Product(self.network, folder, "--hook", hook)
        self.controllers = Controllers(self.product.connect)
        self.talk = Talk(self.network, folder)
        self.starvation = Starvation(lambda: self.product.pid)
        self.tables = Tables()
        self.interfaces: dict[str, dict[str, object]] = {}
        """As they were before the first agent."""
        self._floods: list[subprocess.Popen[Any]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Rig:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            self.interfaces = self.network.interfaces()
            stack.enter_context(self.product)
            stack.enter_context(self.starvation)
            stack.callback(self.controllers.go_all)
            self.start()
            stack.enter_context(self.talk)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ── the agent ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def start(self) -> None:
        """Start an agent, and give it the tables."""
        self.product.start()
        self.controllers.come()
        refused = self.controllers.leader.refused(*protected.messages(), *self.tables.messages())
        assert not refused, refused

    def kill(self) -> None:
        """Once the fast path has a megaflow for all that the talking hosts say: without an agent it gets no more."""
        self.talk.until_answered()
        before = -1

        def nothing_new() -> bool:
            nonlocal before
            last, before = before, self.punted()
            return last == before

        until(nothing_new, "the fast path knows what the hosts say")
        self.product.kill()
        self.controllers.go_all()

    def punted(self) -> int:
        """Packets of the talking hosts that this agent has had to deal with."""
        counters = self.product.counters()
        return sum(counters[port]["slow_path"] for port in TALKING)

    # ── quiet ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    def flood(self, port: int, packets: int, seed: str) -> None:
        """It goes on while other things happen."""
        host = self.network.host(port)
        command = [sys.executable, str(FLOOD), host.interface, seed, str(packets)]
        self._floods.append(self.network.bed.start(command, host=host.name))

    def until_quiet(self) -> None:
        """Nothing that was begun goes on, but for the talking hosts; and one host at least can send."""
        while self._floods:
            self._floods.pop().wait(SECONDS)
        if not self.network.working:
            self.network.make_work(CHANGING[0])
        self.network.until_known(self.product.ports)
        before = -1

        def worked_off() -> bool:
            nonlocal before
            last, before = before, sum(self.product.ask("show")["upcalls"].values())
            return last == before

        until(worked_off, "the slow path has worked off what came up")
        checks.until_expired(self.controllers.leader)
        self.tables.expire()

    def stop(self) -> list[str]:
        """Stop everything; what is wrong with how it ended, and what is left, in words."""
        wrong = list(checks.settled_megaflows(self.product))
        self.controllers.go_all()
        self.talk.close()
        for port in CHANGING:
            self.network.make_work(port)
        wrong += self.product.stop()
        after = self.network.interfaces()
        for name in after.keys() | self.interfaces.keys():
            was, now = self.interfaces.get(name, {}), after.get(name, {})
            wrong += [f"{name}: {what} is {now.get(what)}, was {then}" for what, then in was.items() if now.get(what) != then]
            wrong += [] if was else [f"{name} is left"]
        wrong += self.network.keepers()
        self._stack.close()
        return wrong + self.network.bed.leftovers()
