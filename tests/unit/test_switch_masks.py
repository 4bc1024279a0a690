"""Masks are few, whatever packets are sent; and what a finer mask than needed costs nobody else."""

from __future__ import annotations

from itertools import product
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from switch_shell import Shell
from vectors import frames

from appliance.datapath.layout import MAX_SUBTABLES
from appliance.model.actions import ApplyActions, GotoTable, Output
from appliance.model.fields import BY_NAME, METADATA
from appliance.model.match import Match, MatchField
from appliance.openflow.messages import FlowMod
from appliance.switch.masks import EXACT, FLOW, MAX_MASKS, Masks

FIELDS = ("ipv4_src", "ipv4_dst")


@given(st.lists(st.tuples(st.integers(0, EXACT), st.booleans())), st.integers(1, 5))
def test_a_mask_gives_way_to_a_finer_one_only(wanted: list[tuple[int, bool]], limit: int) -> None:
    masks = Masks(limit)
    taken: list[int] = []
    for bits, goes in wanted:
        bits &= EXACT
        mask = masks.choose(bits)
        assert not bits & ~mask
        masks.take(mask)
        taken.append(mask)
        assert masks.choose(mask) == mask
        assert len(masks) == len(set(taken)) <= limit + 2
        if goes:
            masks.release(taken.pop(0))
    assert all(masks.choose(mask) == mask for mask in taken)


def test_the_widest_that_fits_is_taken() -> None:
    masks = Masks(3)
    src, dst, proto, flags = (BY_NAME[name].mask for name in ("ipv4_src", "ipv4_dst", "ip_proto", "tcp_flags"))
    for mask in (src, src | dst, src | dst | proto):
        assert masks.choose(mask) == mask
        masks.take(mask)
    assert masks.choose(dst) == src | dst
    assert masks.choose(src) == src
    assert masks.choose(proto) == src | dst | proto
    assert masks.choose(BY_NAME["eth_src"].mask) == FLOW
    assert masks.choose(flags) == EXACT
    masks.release(src | dst)
    assert masks.choose(dst) == dst, "there is room again"


def test_the_fast_path_has_room_for_all() -> None:
    assert MAX_MASKS + 2 < MAX_SUBTABLES
    assert not EXACT & METADATA.mask


def first_bit_at(place: int) -> int:
    """An address whose first 1 is its ``place``-th bit."""
    return 1 << 32 - place


def add_tables(shell: Shell) -> None:
    """One table a field, with one entry for each place of an address's first 1: so every pair of places needs a mask of its own."""
    for table, name in enumerate(FIELDS):
        then = GotoTable(table + 1) if table + 1 < len(FIELDS) else ApplyActions((Output(2),))
        for place in range(1, 33):
            field = MatchField(BY_NAME[name], first_bit_at(place), (1 << 32) - (1 << 32 - place))
            match = Match.of((MatchField(BY_NAME["eth_type"], 0x0800), field))
            assert shell.receive(FlowMod(table_id=table, priority=100 - place, match=match, instructions=(then,))) == []


def packet(rnd: Random, places: tuple[int, ...]) -> bytes:
    src, dst = (first_bit_at(place) | rnd.getrandbits(32 - place) for place in places)
    return frames.ethernet(
        0x0800, frames.ipv4(17, frames.udp(), src=src.to_bytes(4, "big"), dst=dst.to_bytes(4, "big"), ttl=rnd.randrange(2, 255))
    )


def test_traffic_made_to_explode_masks_does_not() -> None:
    shell, rnd = Shell(), Random(1)
    add_tables(shell)
    combinations = list(product(range(1, 33), repeat=len(FIELDS)))
    rnd.shuffle(combinations)
    for places in combinations:
        raw = packet(rnd, places)
        assert shell.inject(1, raw) == [(2, raw)]
        before = len(shell.switch.megaflows)
        assert shell.inject(1, raw) == [(2, raw)]
        assert len(shell.switch.megaflows) - before in (0, 1)
    masks = {live.megaflow.mask for live in shell.switch.megaflows}
    assert len(masks) <= MAX_MASKS + 2
    assert masks & {FLOW, EXACT}
    assert len(shell.switch.megaflows) == len(combinations), "each found its place"
    before = sum(shell.switch.upcalls.values())
    raw = packet(Random(2), combinations[0])
    shell.inject(1, raw)
    assert sum(shell.switch.upcalls.values()) == before, "the masks that were there first serve as they did"


def test_what_comes_but_once_gets_no_megaflow_of_its_own() -> None:
    shell, rnd = Shell(), Random(2)
    add_tables(shell)
    for places in product(range(1, 33), repeat=len(FIELDS)):
        raw = packet(rnd, places)
        assert shell.inject(1, raw) == [(2, raw)]
    assert len(shell.switch.megaflows) == MAX_MASKS, "as many as there are masks"
    raw = packet(rnd, (32, 32))
    for _ in range(2):
        assert shell.inject(1, raw) == [(2, raw)]
    assert len(shell.switch.megaflows) == MAX_MASKS + 1
    before = sum(shell.switch.upcalls.values())
    assert shell.inject(1, raw) == [(2, raw)]
    assert sum(shell.switch.upcalls.values()) == before
    assert sum(entry.packet_count for entry in shell.switch.tables[-1]) > 1024
