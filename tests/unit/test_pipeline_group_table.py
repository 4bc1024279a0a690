"""Groups: who refers to whom, what is live, what is counted."""

from __future__ import annotations

import pytest

from appliance.model.actions import ApplyActions, Group, Output, WriteActions
from appliance.model.match import MATCH_ALL
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import OFPG_ALL, Bucket, GroupEntry, GroupHit, GroupTable, GroupType, count


def forward(*group_ids: int) -> Bucket:
    return Bucket(tuple(Group(group_id) for group_id in group_ids))


def table(**groups: list[Bucket]) -> GroupTable:
    """``g1=[...]`` is group 1."""
    made = GroupTable()
    for name, buckets in groups.items():
        made.add(GroupEntry(int(name[1:]), GroupType.ALL, buckets))
    return made


def test_groups_come_and_go() -> None:
    groups = table(g7=[], g2=[])
    assert [group.group_id for group in groups] == [2, 7]
    assert 7 in groups
    with pytest.raises(KeyError):
        groups.add(GroupEntry(7, GroupType.ALL))
    seven = groups.get(7)
    assert groups.delete(7) == [seven]
    assert groups.delete(7) == []
    assert groups.get(7) is None
    assert len(groups.delete(OFPG_ALL)) == 1
    assert len(groups) == 0


def test_a_modified_group_keeps_its_own_counters_but_not_its_buckets() -> None:
    groups = table(g1=[Bucket((Output(1),))])
    group = groups.get(1)
    assert group is not None
    group.created_at = 4.0
    old = group.buckets[0]
    count((GroupHit(group), GroupHit(group, old)), 2, 128)
    assert groups.modify(1, GroupType.SELECT, [Bucket((Output(2),), weight=3)]) is group
    count((GroupHit(group), GroupHit(group, old)), 1, 64)
    assert (group.type, group.packet_count, group.byte_count, group.created_at) == (GroupType.SELECT, 3, 192, 4.0)
    assert (group.buckets[0].packet_count, group.buckets[0].weight) == (0, 3)
    with pytest.raises(KeyError):
        groups.modify(2, GroupType.ALL, [])


def test_loops() -> None:
    groups = table(g1=[forward(2)], g2=[forward(3), Bucket((Output(1),))], g3=[])
    assert groups.loops(3, [forward(1)])
    assert groups.loops(3, [Bucket(), forward(3)])
    assert groups.loops(2, [forward(1)])
    assert not groups.loops(3, [forward(4)])
    assert not groups.loops(1, [forward(2), forward(2, 3)])
    assert not groups.loops(4, [forward(1), forward(2), forward(3)])


def test_what_refers_to_a_group() -> None:
    pipeline = Pipeline()
    for group in table(g1=[forward(3), forward(3)], g2=[forward(3)], g3=[]):
        pipeline.groups.add(group)
    pipeline.table(0).add(FlowEntry(1, MATCH_ALL, (ApplyActions((Group(3), Group(3))), WriteActions((Group(1),)))))
    pipeline.table(4).add(FlowEntry(1, MATCH_ALL, (WriteActions((Group(3),)),)))
    assert pipeline.group_references() == {3: 4, 1: 1}
    assert [group.group_id for group in pipeline.groups.forwarding_to(3)] == [1, 2]
    assert pipeline.groups.missing([forward(3, 9), Bucket(watch_group=8)]) == {9}


# ── liveness ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_bucket_is_live_while_one_of_what_it_watches_is() -> None:
    groups = table(
        g1=[Bucket(watch_port=1), Bucket(watch_port=2)],
        g2=[Bucket()],
        g3=[],
        g4=[Bucket(watch_group=1), Bucket(watch_group=5)],
        g5=[Bucket(watch_group=4, watch_port=9)],
    )
    assert groups.watched_ports(Bucket()) is None
    assert groups.watched_ports(Bucket(watch_port=3)) == {3}
    assert groups.watched_ports(Bucket(watch_port=3, watch_group=1)) == {1, 2, 3}
    assert groups.watched_ports(Bucket(watch_port=3, watch_group=2)) is None
    assert groups.watched_ports(Bucket(watch_group=3)) == frozenset()
    assert groups.watched_ports(Bucket(watch_group=77)) == frozenset()
    consulted: set[int] = set()
    assert groups.watched_ports(Bucket(watch_group=4), consulted) == {1, 2, 9}
    assert consulted == {1, 4, 5}
    missing: set[int] = set()
    groups.watched_ports(Bucket(watch_group=77), missing)
    assert missing == {77}


def test_a_group_is_live_while_one_of_its_buckets_is() -> None:
    groups = table(g1=[Bucket(watch_port=1), Bucket(watch_port=2)], g2=[Bucket(watch_group=2)], g3=[])
    assert groups.is_live(1, lambda port: port == 2)
    assert not groups.is_live(1, lambda _: False)
    assert not groups.is_live(2, lambda _: True)
    assert not groups.is_live(3, lambda _: True)
    assert not groups.is_live(4, lambda _: True)
    assert groups.bucket_is_live(Bucket(), lambda _: False)
