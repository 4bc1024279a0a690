"""Incremental revalidation against translating everything again; and who counts what after a change."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import event, given
from support import pipeline_cases as cases

from appliance.model.fields import METADATA
from appliance.model.match import Match
from appliance.model.megaflow import Controller, Forward, Megaflow, MegaflowStatistics, PacketInReason
from appliance.model.tunnel import NO_TUNNEL
from appliance.packet.execute import INVALID_TTL, Emission, execute
from appliance.packet.parse import parse
from appliance.pipeline.flow_table import FlowEntry
from appliance.pipeline.mac_table import MacTable
from appliance.pipeline.translation import Translation
from appliance.pipeline.xlate import resume, translate
from appliance.switch.megaflows import Megaflows, installable

REST = Forward(0)


class Bench:
    """A pipeline with its megaflows, changed as flow-mods change them."""

    def __init__(self, rnd: Random, translations: int = 10_000) -> None:
        self.rnd = rnd
        self.pipeline = cases.pipeline(rnd)
        self.megaflows = Megaflows(translations=translations, masks=rnd.choice((1, 3, 100)))
        self.frames = [(cases.frame(rnd), rnd.choice(cases.IN_PORTS)) for _ in range(rnd.randint(1, 8))]
        self.keys = [parse(frame, in_port).key for frame, in_port in self.frames]
        self.keys += [cases.flow_key(rnd) for _ in range(rnd.randint(1, 4))]
        self.packets()

    def packets(self) -> None:
        for key in self.keys:
            self.packet(key)

    def translate(self, key: int) -> Translation:
        return translate(self.pipeline, key)

    def packet(self, key: int) -> None:
        translation = self.translate(key)
        mask = self.megaflows.masks.choose(translation.mask)
        if installable(translation) and self.megaflows.at(mask, key) is None:
            self.megaflows.add(translation, key, 0.0, mask)

    def change(self) -> None:
        """Add (maybe in the place of another), modify or delete an entry."""
        rnd = self.rnd
        table_id = rnd.randrange(cases.TABLES)
        table = self.pipeline.table(table_id)
        entries = table.entries()
        kind = rnd.choice(("add", "add", "replace", "modify", "delete") if entries else ("add",))
        event(kind)
        if kind == "add":
            # Priorities stay different in one table, so that the winner is defined.
            entry = cases.flow_entry(rnd, table_id, rnd.choice(sorted(set(range(60)) - {entry.priority for entry in entries})))
            table.add(entry)
            self.megaflows.entry_added(table_id, entry)
            return
        old = rnd.choice(entries)
        if kind == "delete":
            table.remove(old)
            self.megaflows.entry_changed(old)
            return
        new = cases.flow_entry(rnd, table_id, old.priority)
        if kind == "modify":
            old.instructions = new.instructions
            self.megaflows.entry_changed(old)
            return
        entry = FlowEntry(old.priority, old.match, rnd.choice((old, new)).instructions)
        self.megaflows.entry_changed(old)
        self.megaflows.inherit(old, entry)
        assert table.add(entry) is old
        self.megaflows.entry_added(table_id, entry)

    def settle(self) -> tuple[set[int], set[int]]:
        removed, to_read = self.megaflows.revalidate(lambda old: self.translate(old.key))
        return set(removed), set(to_read)

    def regions(self) -> dict[int, Megaflow]:
        return {live.megaflow.id: live.megaflow for live in self.megaflows}


def inside(rnd: Random, megaflow: Megaflow) -> int:
    """Any key that the megaflow is for."""
    return cases.flip(rnd, megaflow.key, ~megaflow.mask & ~METADATA.mask)


def run(bench: Bench, frame: bytes, in_port: int) -> list[Emission]:
    """What becomes of a frame, by nothing but translation on the way."""
    translation, tunnel = bench.translate(parse(frame, in_port).key), NO_TUNNEL
    emissions: list[Emission] = []
    while (again := translation.again) is not None:
        *more, rest = execute(frame, (*translation.actions, REST), in_port, tunnel=tunnel)
        emissions += more
        if rest.action is not REST:
            return [*emissions, rest]
        frame, tunnel = rest.frame, rest.tunnel
        translation = resume(bench.pipeline, again, parse(frame, in_port, *tunnel).key)
    return emissions + execute(frame, translation.actions, in_port, tunnel=tunnel)


def anonymous(emissions: list[Emission]) -> list[Emission]:
    """Which entry found the TTL used up can be told only by who looks at one packet by itself."""
    return [
        replace(item, action=INVALID_TTL)
        if isinstance(item.action, Controller) and item.action.reason is PacketInReason.INVALID_TTL
        else item
        for item in emissions
    ]


def assert_right(bench: Bench) -> None:
    """Every live megaflow does what translating anew does, with any packet within it."""
    for live in bench.megaflows:
        megaflow = live.megaflow
        for frame, in_port in bench.frames:
            if parse(frame, in_port).key & megaflow.mask == megaflow.key:
                assert anonymous(execute(frame, megaflow.actions, in_port)) == anonymous(run(bench, frame, in_port))
        for key in (megaflow.key, inside(bench.rnd, megaflow), inside(bench.rnd, megaflow)):
            new = bench.translate(key)
            # A new translation may have to stop where an entry that cannot match asks for bits that it does not know.
            event(f"stops: {new.again is not None}")
            assert new.again is not None or new.actions == megaflow.actions


@given(cases.RANDOMS)
def test_revalidation_is_exact(rnd: Random) -> None:
    """Every megaflow that is left is right for all its packets; none was removed without need."""
    bench = Bench(rnd)
    for _ in range(4):
        before = bench.regions()
        for _ in range(rnd.randint(1, 3)):
            bench.change()
        removed, _ = bench.settle()
        event(f"removed: {bool(removed)}, stayed: {len(bench.megaflows) > 0}")
        assert removed | set(bench.regions()) == set(before)
        assert not removed & set(bench.regions())
        assert_right(bench)
        for megaflow_id in removed:
            old = before[megaflow_id]
            new = bench.translate(old.key)
            assert new.actions != old.actions or new.mask & ~old.mask or not installable(new)
        assert not bench.megaflows.stale
        bench.packets()


@given(cases.RANDOMS)
def test_many_changes_may_remove_more_but_leave_nothing_wrong(rnd: Random) -> None:
    """More megaflows touched than may be translated: all of those go."""
    bench = Bench(rnd, translations=1)
    bench.change()
    bench.change()
    bench.settle()
    assert_right(bench)


@given(cases.RANDOMS)
def test_packets_are_credited_to_the_entries_that_they_met(rnd: Random) -> None:
    """Before a change, after it and when a megaflow goes, against counting each packet when it passes."""
    bench = Bench(rnd)
    macs = MacTable()
    expected: dict[FlowEntry, int] = {}
    replaced: set[FlowEntry] = set()
    ever: set[FlowEntry] = set()
    passed: dict[int, int] = {}

    def traffic() -> None:
        for live in bench.megaflows:
            packets = rnd.randrange(4)
            passed[live.megaflow.id] = passed.get(live.megaflow.id, 0) + packets
            new = bench.translate(live.megaflow.key)
            for lookup in new.lookups if new.again is None else live.translation.lookups:
                if lookup.entry is not None:
                    expected[lookup.entry] = expected.get(lookup.entry, 0) + packets

    def statistics(ids: set[int]) -> dict[int, MegaflowStatistics]:
        return {number: MegaflowStatistics(passed.get(number, 0), passed.get(number, 0) * 100, 5.0) for number in ids}

    def entries() -> dict[tuple[int, int, Match], FlowEntry]:
        return {(table.table_id, entry.priority, entry.match): entry for table in bench.pipeline for entry in table.entries()}

    for _ in range(4):
        traffic()
        before = entries()
        ever.update(before.values())
        bench.change()
        after = entries()
        for place, old in before.items():
            new = after.get(place)
            if new is not None and new is not old:
                replaced.add(old)
                new.packet_count, new.byte_count = old.packet_count, old.byte_count
                expected[new] = expected.pop(old, 0)
        ever.update(after.values())
        removed, to_read = bench.settle()
        event(f"credited apart: {bool(to_read)}")
        bench.megaflows.count_final(statistics(removed), bench.pipeline, macs)
        bench.megaflows.count(statistics(to_read), bench.pipeline, macs)
        if rnd.random() < 0.5:
            bench.packets()
    traffic()
    bench.megaflows.count(statistics(set(bench.megaflows.ids())), bench.pipeline, macs)
    for entry in ever - replaced:
        assert (entry.packet_count, entry.byte_count) == (expected.get(entry, 0), expected.get(entry, 0) * 100)
        assert not bench.megaflows.owes(entry) or entry in entries().values()


@given(cases.RANDOMS)
def test_nothing_is_kept_of_megaflows_that_are_gone(rnd: Random) -> None:
    """The indexes hold what the live megaflows are, and no more."""
    bench = Bench(rnd)
    for _ in range(3):
        bench.change()
        removed, to_read = bench.settle()
        bench.megaflows.count_final(dict.fromkeys(removed, MegaflowStatistics(1, 1, 1.0)), bench.pipeline, MacTable())
        assert to_read <= set(bench.megaflows.ids())
    bench.megaflows.conclude()
    bench.megaflows.remove(bench.megaflows.ids())
    bench.megaflows.conclude()
    assert len(bench.megaflows) == 0
    empty = Megaflows()
    kept = {name: value for name, value in vars(bench.megaflows).items() if isinstance(value, dict | set) and name != "_by_table"}
    assert kept == {name: getattr(empty, name) for name in kept}
    assert all(not groups for groups in bench.megaflows._by_table.values())
