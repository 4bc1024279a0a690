"""Packets that the fast path sends up for the controllers come out of the ring buffer together: those of a port that are alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.bursts import one_by_one
from support.fast_path import FastPath
from vectors import frames

from appliance.datapath.layout import UpcallShare, port_place
from appliance.model.actions import PushPbb
from appliance.model.fields import ETH_TYPE, IN_PORT, METADATA
from appliance.model.megaflow import Burst, Controller, DatapathAction, Forward, PacketInReason, Upcall, UpcallReason
from appliance.model.ports import Hook
from appliance.packet.parse import parse

pytestmark = pytest.mark.root

PORT, OTHER_PORT = 1, 2
UP = Controller(PacketInReason.ACTION, 3, 9, 0xFFFF, metadata=5)
TAG = bytes.fromhex("81000007")


@pytest.fixture(scope="module")
def fast_path() -> Iterator[FastPath]:
    made = FastPath(PORT)
    yield made
    made.close()


def frame(number: int) -> bytes:
    return frames.ethernet(0x1234, bytes([number]) + bytes(45 + number))


def in_queue(fast_path: FastPath, port: int) -> int:
    raw = fast_path.datapath.programs.read("upcall_shares", port_place(port))
    share = UpcallShare.from_buffer_copy(raw)
    return (share.taken - share.served) & 0xFFFFFFFF


@pytest.mark.parametrize("actions", [(UP,), (UP, Forward(3)), (PushPbb(0x88E7), Forward(3))])
def test_those_of_one_megaflow(fast_path: FastPath, actions: tuple[DatapathAction, ...]) -> None:
    """For the controllers alone, beside an output, and for another reason; each with its own frame and key, and its share."""
    reason = UpcallReason.COPY if len(actions) > 1 and UP in actions else UpcallReason.ACTION
    first, other = fast_path.install(actions), fast_path.install(actions, IN_PORT.put(0, OTHER_PORT))
    tagged = frame(2)[:12] + TAG + frame(2)[12:]
    for raw in (frame(1), tagged, frame(3)):
        fast_path.run(raw, Hook.TC, network_tag=raw is tagged)
    with fast_path.coming_in_on(OTHER_PORT):
        fast_path.run(frame(4), Hook.TC)
    fast_path.run(frame(5), Hook.TC)
    fast_path.datapath.remove([first, other])
    fast_path.run(frame(6), Hook.TC)
    fast_path.run(frame(7), Hook.TC)
    burst, *rest = fast_path.datapath.upcalls(100)
    assert isinstance(burst, Burst)
    assert burst.frames == [frame(1), tagged, frame(3), frame(5)]
    assert burst.first == next(burst.one_by_one())
    for upcall in burst.one_by_one():
        assert upcall.key & ~METADATA.mask == parse(upcall.frame, PORT).key
        assert (upcall.in_port, upcall.reason, upcall.megaflow_id) == (PORT, reason, first)
        assert upcall.controller == (UP if reason is UpcallReason.COPY else None)
    alone = [upcall for upcall in rest if isinstance(upcall, Upcall)]
    assert [upcall.frame for upcall in alone] == [frame(number) for number in (4, 6, 7)]
    assert [upcall.megaflow_id for upcall in alone] == [other, 0, 0]
    assert (in_queue(fast_path, PORT), in_queue(fast_path, OTHER_PORT), in_queue(fast_path, 0)) == (0, 0, 0)


def test_none_of_its_port_overtakes_another(fast_path: FastPath) -> None:
    megaflow = fast_path.install((UP,), ETH_TYPE.put(IN_PORT.put(0, PORT), 0x1234), IN_PORT.mask | ETH_TYPE.mask)
    missed = frames.ethernet(0x1235, bytes(46))
    came = [frame(1), frame(2), missed, frame(3), frame(4)]
    for raw in came:
        fast_path.run(raw, Hook.TC)
    fast_path.datapath.remove([megaflow])
    upcalls = fast_path.datapath.upcalls(100)
    assert [type(upcall) for upcall in upcalls] == [Burst, Upcall, Burst]
    assert [upcall.frame for upcall in one_by_one(upcalls)] == came


def test_what_copies_say_tells_them_apart(fast_path: FastPath) -> None:
    """A packet that goes to controllers by two entries."""
    again = replace(UP, cookie=10)
    megaflow = fast_path.install((UP, again, Forward(3)))
    fast_path.run(frame(1), Hook.TC)
    fast_path.run(frame(2), Hook.TC)
    fast_path.datapath.remove([megaflow])
    upcalls = [upcall for upcall in fast_path.datapath.upcalls(100) if isinstance(upcall, Upcall)]
    assert [(upcall.controller, upcall.frame) for upcall in upcalls] == [
        (UP, frame(1)),
        (again, frame(1)),
        (UP, frame(2)),
        (again, frame(2)),
    ]


def test_the_limit_is_one_of_packets(fast_path: FastPath) -> None:
    megaflow = fast_path.install((UP,))
    for number in range(5):
        fast_path.run(frame(number), Hook.TC)
    fast_path.datapath.remove([megaflow])
    found = [fast_path.datapath.upcalls(2) for _ in range(4)]
    assert [[item.frames if isinstance(item, Burst) else [item.frame] for item in some] for some in found] == [
        [[frame(0), frame(1)]],
        [[frame(2), frame(3)]],
        [[frame(4)]],
        [],
    ]
