"""How many megaflows there may be, and which go first."""

from __future__ import annotations

from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import ApplyActions, Output
from appliance.model.fields import BY_NAME, ETH_SRC
from appliance.model.match import Match, MatchField
from appliance.openflow.messages import FlowMod
from appliance.switch.ageing import GROWTH, LEAST, SWEEP_SECONDS, Limit, Order
from appliance.switch.events import InstallRefused
from appliance.switch.masks import EXACT


# ── the limit ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_sweeps_that_take_too_long_lower_the_limit() -> None:
    limit = Limit(65536)
    limit.swept(1.3 * SWEEP_SECONDS, 40_000)
    assert limit.now == 65536
    limit.swept(1.5 * SWEEP_SECONDS, 40_000)
    assert limit.now == 30_000
    limit.swept(4 * SWEEP_SECONDS, 30_000)
    assert limit.now == 7_500
    limit.swept(100.0, 7_500)
    assert limit.now == LEAST
    limit.swept(100.0, LEAST)
    assert limit.now == LEAST


def test_it_grows_again_while_there_is_time() -> None:
    limit = Limit(5000)
    limit.swept(100.0, 5000)
    limit.swept(SWEEP_SECONDS, LEAST)
    assert limit.now == LEAST, "just enough time is no reason"
    for sweep in range(1, 4):
        limit.swept(0.5 * SWEEP_SECONDS, LEAST)
        assert limit.now == min(LEAST + sweep * GROWTH, 5000)
    limit.swept(0.0, 0)
    assert limit.now == 5000


def test_a_limit_that_is_small_by_configuration_stays() -> None:
    limit = Limit(7)
    limit.swept(100.0, 7)
    assert limit.now == 7


# ── the order ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_was_used_but_once_goes_first() -> None:
    order = Order()
    for number in range(6):
        order.add(number)
    for number in (4, 0, 2, 4):
        order.used(number)
    assert order.first(10, lambda _: True) == [1, 3, 5, 0, 2, 4]
    assert order.first(4, lambda _: True) == [1, 3, 5, 0]
    assert order.first(10, lambda number: number not in (3, 2)) == [1, 0]
    order.remove(3)
    order.remove(0)
    assert order.first(10, lambda _: True) == [1, 5, 2, 4]


# ── both, in the switch ────────────────────────────────────────────────────────────────────────────────────────────────
def frame(src: int) -> bytes:
    return frames.ethernet(0x1234, bytes(46), src=mac(src))


def by_source(*sources: int, **switch: object) -> Shell:
    """A switch with a megaflow for each source."""
    shell = Shell(**switch)  # type: ignore[arg-type]
    for src in range(1, 2001):
        match = Match.of([MatchField(BY_NAME["eth_src"], int.from_bytes(mac(src), "big"))])
        assert shell.receive(FlowMod(match=match, priority=1, instructions=(ApplyActions((Output(2),)),))) == []
    for src in sources:
        shell.inject(1, frame(src))
    return shell


def live(shell: Shell) -> set[int]:
    return {ETH_SRC.get(item.megaflow.key) & 0xFFFF for item in shell.switch.megaflows}


def test_new_ones_do_not_push_out_the_busy_ones() -> None:
    busy = range(1, 51)
    shell = by_source(*busy, max_megaflows=300)
    for second in range(20):
        for src in busy:
            shell.inject(1, frame(src))
        for n in range(90):
            shell.inject(1, frame(100 + second * 90 + n))
        shell.now += 1
        shell.sweep()
        assert len(shell.switch.megaflows) <= 300
        assert set(busy) <= live(shell)
    assert live(shell) >= {100 + 19 * 90 + n for n in range(90)}, "those that have just come"


def test_the_longest_unused_goes_when_all_were_used() -> None:
    shell = by_source(1, 2, 3, max_megaflows=4)
    for src in (3, 1, 2):
        shell.inject(1, frame(src))
        shell.now += 1
        shell.sweep()
    shell.now += 5
    shell.inject(1, frame(4))
    shell.inject(1, frame(5))
    assert 5 in live(shell)
    assert 3 not in live(shell)


def test_a_sinking_limit_is_followed_in_steps() -> None:
    shell = by_source(*range(1, 2001))
    assert len(shell.switch.megaflows) == 2000
    shell.now += 3
    shell.sweep(seconds=3.0)
    assert shell.switch.megaflow_limit == LEAST
    counts = []
    while len(shell.switch.megaflows) > LEAST:
        shell.sweep(seconds=SWEEP_SECONDS)
        counts.append(len(shell.switch.megaflows))
    assert len(counts) > 1
    assert counts[-1] == LEAST
    assert shell.switch.megaflow_limit == LEAST
    total = sum(entry.packet_count for table in shell.switch.tables for entry in table)
    assert total == 2000, "what went was counted"


def test_statistics_are_not_lost_with_a_megaflow_that_must_go() -> None:
    shell = by_source(1, max_megaflows=1)
    for _ in range(4):
        shell.inject(1, frame(1))
    shell.inject(1, frame(2))
    assert live(shell) == {2}
    counts = {entry.match.value: entry.packet_count for table in shell.switch.tables for entry in table if entry.packet_count}
    assert sorted(counts.values()) == [1, 5]


def test_one_that_is_refused_is_tried_for_a_single_kind_of_packets() -> None:
    shell = by_source(1)
    (first,) = shell.switch.megaflows
    shell.datapath.remove([first.megaflow.id])
    shell.step(InstallRefused(first.megaflow.id))
    (second,) = shell.switch.megaflows
    assert (second.megaflow.mask, second.megaflow.actions) == (EXACT, first.megaflow.actions)
    assert [item.id for item in shell.datapath.megaflows] == [second.megaflow.id]
    shell.datapath.remove([second.megaflow.id])
    shell.step(InstallRefused(second.megaflow.id))
    assert shell.switch.megaflows == ()
