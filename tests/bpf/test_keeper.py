"""The process that holds the program arrays: when that of an agent that died is ended by the next agent's."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from support.waiting import SECONDS

from appliance.datapath.keeper import Keeper
from appliance.lab.testbed import Testbed

pytestmark = pytest.mark.root


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed.of(3) as bed:
        yield bed


class Scene:
    """An agent that died, and the next one. ``stays`` and ``ended`` are of the dead one's keeper."""

    def __init__(self, bed: Testbed, dead: Keeper, following: Keeper) -> None:
        self.indices = bed.inside(None, lambda: [socket.if_nametoindex(name) for name in bed.interfaces])
        self._bed = bed
        self._dead = dead
        self._next = following
        bed.inside(None, lambda: dead.keep(self.indices))

    def keep(self, *interfaces: int, freed: tuple[int, ...] = ()) -> None:
        self._bed.inside(None, lambda: self._next.keep(interfaces, freed))

    @property
    def stays(self) -> bool:
        """Seen from outside: who is killed takes a moment to end."""
        assert self._dead._process is not None
        try:
            return self._dead._process.wait(0.2) == 0
        except subprocess.TimeoutExpired:
            return True

    @property
    def ended(self) -> bool:
        assert self._dead._process is not None
        return self._dead._process.wait(SECONDS) == -signal.SIGKILL


@contextmanager
def scene(bed: Testbed) -> Iterator[Scene]:
    with closing(Keeper(())) as dead, closing(Keeper(())) as following:
        yield Scene(bed, dead, following)


def test_it_is_there_until_the_next_agent_has_all_of_its_interfaces(bed: Testbed) -> None:
    with scene(bed) as next_agent:
        first, second, third = next_agent.indices
        next_agent.keep(first, second)
        assert next_agent.stays
        next_agent.keep(first)
        assert next_agent.stays
        next_agent.keep(first, third)
        assert next_agent.ended, "the second one had ours, and has left"


def test_an_interface_that_is_gone_keeps_nothing(bed: Testbed) -> None:
    with scene(bed) as next_agent:
        first, second, _ = next_agent.indices
        next_agent.keep(first, second)
        assert bed.run(["ip", "link", "del", bed.interfaces[2]]).returncode == 0
        next_agent.keep(first)
        assert next_agent.ended


def test_an_interface_that_was_only_cleaned_keeps_nothing(bed: Testbed) -> None:
    with scene(bed) as next_agent:
        first, second, third = next_agent.indices
        next_agent.keep(first)
        next_agent.keep(freed=(first,))
        next_agent.keep(freed=(second,))
        assert next_agent.stays
        next_agent.keep(freed=(third,))
        assert next_agent.ended


def test_one_in_another_network_namespace_is_let_alone(bed: Testbed) -> None:
    with scene(bed) as next_agent:
        indices = next_agent.indices
        with closing(Keeper(())) as elsewhere:
            bed.inside("h1", lambda: elsewhere.keep(indices))
            assert next_agent.stays
        next_agent.keep(*indices)
        assert next_agent.ended
