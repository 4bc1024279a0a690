"""A packet finds its own megaflow: among all others, by way of the cache or not, and never one that is gone."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from support.fast_path import FastPath, Verdict
from vectors.packets import IN_PORT, PACKETS, PacketVector

from appliance.datapath.layout import CACHE_WAYS, CacheSet, Repeated
from appliance.datapath.slots import REST_SECONDS
from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME, KEY_MASK, LAYOUT
from appliance.model.fields import IN_PORT as IN_PORT_FIELD
from appliance.model.megaflow import DatapathAction, Forward, PushTag
from appliance.model.ports import Hook
from appliance.packet.parse import parse

pytestmark = pytest.mark.root

ETHERNET_BYTES = 14
FRAMES = list({vector.key: vector for vector in PACKETS if len(vector.frame) >= ETHERNET_BYTES}.values())
"""One for each key."""
BY_VECTOR = {vector.name: vector for vector in PACKETS}


@pytest.fixture(scope="module")
def fast_path() -> Iterator[FastPath]:
    fast_path = FastPath(IN_PORT)
    yield fast_path
    fast_path.close()


def outputs(fast_path: FastPath, vector: PacketVector, hook: Hook) -> list[object]:
    return [output.action for output in fast_path.execute(vector.frame, hook).outputs]


@pytest.mark.parametrize("hook", Hook)
def test_every_key_finds_its_own_megaflow(fast_path: FastPath, hook: Hook) -> None:
    """Twice: the second time out of the cache."""
    ids = [fast_path.install((Forward(number),), vector.key, KEY_MASK) for number, vector in enumerate(FRAMES, 1)]
    try:
        for _ in range(2):
            for number, vector in enumerate(FRAMES, 1):
                try:
                    assert outputs(fast_path, vector, hook) == [Forward(number)], vector.name
                except pytest.skip.Exception:
                    continue  # not a frame that the kernel takes for a test run
    finally:
        fast_path.datapath.remove(ids)


@pytest.mark.parametrize("member", [name for name in LAYOUT if name not in ("reserved", "in_port")])
def test_every_bit_of_the_key_is_compared(fast_path: FastPath, member: str) -> None:
    """A megaflow that differs from the packet in one bit of one member, all of which its mask has, is not the packet's."""
    offset, size = LAYOUT[member]
    shift = (128 - offset - size) * 8
    vector = next((vector for vector in FRAMES if vector.key >> shift & ((1 << size * 8) - 1)), FRAMES[-1])
    for bit in (0, size * 8 - 1):
        mask = IN_PORT_FIELD.mask | ((1 << size * 8) - 1) << shift
        megaflow = fast_path.install((Forward(2),), (vector.key ^ 1 << shift + bit) & mask, mask)
        other = fast_path.install((Forward(3),), vector.key & mask, mask)
        try:
            assert outputs(fast_path, vector, Hook.XDP) == [Forward(3)]
            assert outputs(fast_path, vector, Hook.XDP) == [Forward(3)]
        finally:
            fast_path.datapath.remove([megaflow, other])


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize(
    "actions", [(), (Forward(2),), (SetField(BY_NAME["eth_dst"], 5), Forward(2)), (PushTag(0x8100, 7), Forward(2))]
)
def test_a_common_packet_is_not_taken_for_one_with_more_fields(
    fast_path: FastPath, actions: tuple[DatapathAction, ...], hook: Hook
) -> None:
    """The cache may lead every packet to any megaflow. Of this one's key a packet of the express way has all that it looks at."""
    common = BY_VECTOR["IPv4 UDP"]
    tunnel = BY_NAME["tunnel_id"]
    megaflow = fast_path.install(actions, tunnel.put(common.key, 5), IN_PORT_FIELD.mask | tunnel.mask)
    other = fast_path.install((Forward(3),), common.key, IN_PORT_FIELD.mask | BY_NAME["eth_dst"].mask)
    sizes = fast_path.datapath.sizes
    cache = fast_path.datapath.programs.shared_memory("cache", sizes.cache_sets * sizes.cpus * ctypes.sizeof(CacheSet))
    entries = memoryview(cache).cast("Q")
    try:
        for at in range(CACHE_WAYS - 1, len(entries), CACHE_WAYS):  # the last way is taken whatever its tag
            entries[at] = fast_path.datapath.megaflows.installed[megaflow].slot + 1
        assert outputs(fast_path, common, hook) == [Forward(3)]
    finally:
        fast_path.datapath.remove([megaflow, other])


CPU = min(os.sched_getaffinity(0))


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Test runs are on CPU: each has its own memory of the packet that was repeated last."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def repeated_slot(fast_path: FastPath) -> int:
    """Of the packet that came twice in a row lately on CPU; -1 for none."""
    size = fast_path.datapath.sizes.cpus * ctypes.sizeof(Repeated)
    memory = fast_path.datapath.programs.shared_memory("repeated", size)
    return Repeated.from_buffer_copy(memory, CPU * ctypes.sizeof(Repeated)).slot - 1


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize("name", ["IPv4 UDP", "IPv4 TCP SYN"])
def test_a_packet_that_differs_in_one_bit_is_not_the_one_that_is_repeated(fast_path: FastPath, name: str, hook: Hook) -> None:
    """Unless its key is the same. What is no packet's of the megaflow is a miss."""
    frame = BY_VECTOR[name].frame.ljust(60, b"\0")
    key, miss = parse(frame, IN_PORT).key, Verdict.XDP_PASS if hook is Hook.XDP else Verdict.TC_STOLEN

    def goes_on(frame: bytes) -> bool:
        """As the first one does. If not, it is a miss."""
        result = fast_path.execute_once(frame, hook)
        assert result.outputs or result.code == miss
        return [output.action for output in result.outputs] == [Forward(2)]

    megaflow = fast_path.install((Forward(2),), key, KEY_MASK)
    slot = fast_path.datapath.megaflows.installed[megaflow].slot
    others = [(int.from_bytes(frame, "big") ^ 1 << bit).to_bytes(len(frame), "big") for bit in range(8 * len(frame))]
    others += [frame[:length] for length in range(ETHERNET_BYTES, len(frame))]
    try:
        with on_one_cpu():
            for _ in range(3):
                assert goes_on(frame)
            for other in others:
                with suppress(pytest.skip.Exception):  # not a frame that the kernel takes for a test run
                    assert goes_on(other) == (parse(other, IN_PORT).key == key), other.hex()
                assert repeated_slot(fast_path) == slot
            with fast_path.coming_in_on(IN_PORT + 1):
                assert not goes_on(frame)
            assert goes_on(frame)
    finally:
        fast_path.datapath.remove([megaflow])
    assert repeated_slot(fast_path) == -1


def test_a_slot_that_is_used_anew_is_not_found_by_its_old_packets(fast_path: FastPath) -> None:
    """The cache still leads there; the memory of the last packet that was repeated does not."""
    old, new = BY_VECTOR["IPv4 TCP SYN"], BY_VECTOR["IPv4 ICMP echo"]  # which is not compared with the last one
    slots = fast_path.datapath.sizes.megaflows
    megaflow = fast_path.install((Forward(2),), old.key, KEY_MASK)
    slot = fast_path.datapath.megaflows.installed[megaflow].slot
    with on_one_cpu():
        assert outputs(fast_path, old, Hook.XDP) == [Forward(2)]
    assert repeated_slot(fast_path) == slot
    fast_path.datapath.remove([megaflow])
    assert fast_path.execute(old.frame, Hook.XDP).code == Verdict.XDP_PASS
    time.sleep(REST_SECONDS)
    for _ in range(slots):
        megaflow = fast_path.install((Forward(3),), new.key, KEY_MASK)
        if fast_path.datapath.megaflows.installed[megaflow].slot == slot:
            break
        fast_path.datapath.remove([megaflow])
    assert fast_path.datapath.megaflows.installed[megaflow].slot == slot
    try:
        with on_one_cpu():
            assert outputs(fast_path, new, Hook.XDP) == [Forward(3)]
            assert fast_path.execute(old.frame, Hook.XDP).code == Verdict.XDP_PASS
    finally:
        fast_path.datapath.remove([megaflow])


def test_one_megaflow_for_more_packets_than_the_cache_has_room_for(fast_path: FastPath) -> None:
    megaflow = fast_path.install((Forward(2),))
    frame = bytearray(FRAMES[-1].frame)
    try:
        for number in range(4 * fast_path.datapath.sizes.cache_sets):
            frame[6:10] = number.to_bytes(4, "little")
            assert fast_path.run(bytes(frame), Hook.XDP, 1)[-1] == 2
        packets = fast_path.datapath.statistics([megaflow])[megaflow].packets
        assert packets == 4 * fast_path.datapath.sizes.cache_sets
    finally:
        fast_path.datapath.remove([megaflow])
