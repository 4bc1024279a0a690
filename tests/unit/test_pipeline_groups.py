"""Groups, meters, queues and encapsulations in translation, case by case."""

from __future__ import annotations

from pipeline_support import ALL, DST, FF, INDIRECT, SELECT, SRC, F, Setup, all_of, apply, bucket, fast, key_of, vid, write

from appliance.model.actions import (
    ApplyActions,
    DecNwTtl,
    GotoTable,
    Group,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    SetQueue,
    WriteActions,
)
from appliance.model.fields import ETH_DST, IN_PORT, VLAN_VID
from appliance.model.megaflow import (
    MAX_WAYS,
    Clone,
    Controller,
    DecTtl,
    Failover,
    Forward,
    PacketInReason,
    PopTag,
    PushTag,
    Select,
    Way,
)
from appliance.model.ports import PortNo
from appliance.pipeline.group_table import GroupHit, count
from appliance.pipeline.group_walk import MAX_COPIES
from appliance.pipeline.xlate import Stage, Translation, resume, translate_actions


# ── ALL and INDIRECT ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_buckets_that_only_output_are_outputs() -> None:
    translation = all_of(bucket(Output(2)), bucket(Output(3)), bucket(), bucket(Output(1)))
    assert translation.actions == (Forward(2), Forward(3))
    assert translation.mask == IN_PORT.mask
    assert not translation.slow_path_only


def test_the_last_copy_is_the_packet_itself() -> None:
    translation = all_of(bucket(DecNwTtl(), DST, Output(2)), bucket(Output(3)))
    assert translation.actions == (Forward(3), DecTtl(), DST, Forward(2))
    assert fast(translation.actions)


def test_buckets_that_do_the_same_share_it() -> None:
    translation = all_of(bucket(PopVlan(), Output(2)), bucket(Output(3)), bucket(PopVlan(), Output(4)), key=key_of(9))
    assert translation.actions == (Forward(3), PopTag(), Forward(2), Forward(4))


def test_a_pushed_tag_is_popped_for_the_next_copy() -> None:
    translation = all_of(bucket(PushVlan(0x8100), vid(7), Output(2)), bucket(PushVlan(0x8100), vid(8), Output(3)))
    assert translation.actions == (PushTag(0x8100, 7), Forward(2), PopTag(), PushTag(0x8100, 8), Forward(3))
    assert fast(translation.actions)


def test_what_the_next_copy_sets_anyway_is_not_set_back() -> None:
    other = SetField(ETH_DST, 9)
    translation = all_of(bucket(DST, Output(2)), bucket(other, Output(3)), bucket(other, SRC, Output(4)))
    assert translation.actions == (DST, Forward(2), other, Forward(3), other, SRC, Forward(4))
    assert translation.mask == IN_PORT.mask


def test_what_is_set_back_is_in_the_mask() -> None:
    translation = all_of(bucket(DST, Output(2)), bucket(SRC, Output(3)))
    was = SetField(ETH_DST, ETH_DST.get(key_of()))
    assert translation.actions == (DST, Forward(2), was, SRC, Forward(3))
    assert translation.mask == IN_PORT.mask | ETH_DST.mask
    tagged = all_of(bucket(vid(7), Output(2)), bucket(SRC, Output(3)), key=key_of(0x6005))
    assert tagged.actions == (vid(7), Forward(2), vid(5), SRC, Forward(3))


def test_what_is_set_back_in_a_tag_that_has_moved_is_asked_of_where_it_was() -> None:
    setup = apply(PopVlan(), Group(1), SRC, Output(9)).group(INDIRECT, bucket(vid(7), Output(2)))
    translation = setup.translate(key_of(5, 6))
    assert translation.actions == (PopTag(), vid(7), Forward(2), vid(6), SRC, Forward(9))
    inner_vid = VLAN_VID.max << F["inner_vlan_tci"].shift
    assert translation.mask == IN_PORT.mask | 0x1000 << F["vlan_tci"].shift | inner_vid


def test_a_tag_set_back_is_not_the_one_that_is_pushed_on_it() -> None:
    setup = apply(Group(1), PushVlan(0x8100), SetQueue(1), vid(8), Output(9)).group(INDIRECT, bucket(vid(7), Output(2)))
    actions = setup.translate(key_of(5)).actions
    assert actions == (vid(7), Forward(2), vid(5), PushTag(0x8100, 5), SetQueue(1), vid(8), Forward(9))


def test_a_copys_new_protocol_is_its_own() -> None:
    proto, ipv4 = SetField(F["ip_proto"], 17), SetField(F["ipv4_dst"], 1)
    translation = apply(Group(1), ipv4, Output(9)).group(INDIRECT, bucket(proto, Output(2))).translate()
    assert translation.again is None
    assert translation.actions == (Clone((proto, Forward(2))), ipv4, Forward(9))


def test_what_cannot_be_undone_goes_last_and_a_second_such_copy_is_a_clone() -> None:
    dscp = [SetField(F["ip_dscp"], value) for value in (1, 2)]
    translation = all_of(bucket(dscp[0], Output(2)), bucket(PushVlan(0x8100), Output(3)))
    assert translation.actions == (PushTag(0x8100, 0), Forward(3), PopTag(), dscp[0], Forward(2))
    translation = all_of(bucket(dscp[0], Output(2)), bucket(dscp[1], Output(3)))
    assert translation.actions == (Clone((dscp[0], Forward(2))), dscp[1], Forward(3))
    assert fast(translation.actions)
    assert not translation.slow_path_only


def test_a_group_in_an_action_list_works_on_a_copy() -> None:
    translation = apply(Group(1), Output(3), SRC, Output(4)).group(INDIRECT, bucket(DST, Output(2))).translate()
    was = SetField(ETH_DST, ETH_DST.get(key_of()))
    assert translation.actions == (DST, Forward(2), was, Forward(3), SRC, Forward(4))
    # With nothing but outputs behind it, these go first.
    translation = apply(Group(1), Output(3)).group(INDIRECT, bucket(DecNwTtl(), Output(2))).translate()
    assert translation.actions == (Forward(3), DecTtl(), Forward(2))


def test_later_tables_see_the_packet_as_it_was() -> None:
    setup = Setup(ApplyActions((Group(1),)), GotoTable(1)).group(ALL, bucket(DST, Output(2)))
    setup.entry(1, ApplyActions((Output(3),)), priority=1, eth_dst=ETH_DST.get(key_of()))
    setup.entry(1, ApplyActions((Output(4),)), priority=2, eth_dst=5)
    translation = setup.translate()
    assert translation.actions == (Forward(3), DST, Forward(2))


def test_a_bucket_is_an_action_set() -> None:
    translation = all_of(bucket(Output(2), DST, Output(3), SetField(ETH_DST, 9), PushVlan(0x8100)))
    assert translation.actions == (PushTag(0x8100, 0), SetField(ETH_DST, 9), Forward(3))


def test_a_packet_in_from_a_bucket_says_action_and_the_entrys_cookie() -> None:
    setup = Setup(GotoTable(4)).entry(4, ApplyActions((Group(1),))).group(ALL, bucket(Output(PortNo.CONTROLLER, 9)))
    assert setup.translate().actions == (Controller(PacketInReason.ACTION, 4, 4, 9),)


def test_groups_are_chained() -> None:
    setup = (
        write(Group(1)).group(ALL, bucket(DST, Group(2)), bucket(Output(9))).group(ALL, bucket(Output(2)), bucket(SRC, Output(3)))
    )
    translation = setup.translate()
    assert translation.actions == (Forward(9), DST, Forward(2), SRC, Forward(3))
    assert translation.groups == {1, 2}


def test_a_group_that_is_not_there_does_nothing_but_the_translation_depends_on_it() -> None:
    translation = apply(Group(1), Output(2)).translate()
    assert translation.actions == (Forward(2),)
    assert translation.groups == {1}
    assert translation.hits == ()


def test_chained_groups_do_not_multiply_without_end() -> None:
    setup = write(Group(1))
    for group_id in range(2, 42):
        setup.group(ALL, bucket(Group(group_id)), bucket(Group(group_id)))
    setup.group(ALL, bucket(Output(2)))
    translation = setup.translate()
    assert len(translation.hits) <= 2 * MAX_COPIES + 2


def test_a_packet_out_runs_groups_and_goes_on_with_the_packet() -> None:
    setup = Setup(ApplyActions((Output(9),))).group(ALL, bucket(DST, Output(2)))
    actions = (Group(1), SRC, Output(PortNo.TABLE), Group(1))
    translation = translate_actions(setup.pipeline, key_of(), actions)
    was = SetField(ETH_DST, ETH_DST.get(key_of()))
    assert translation.actions == (DST, Forward(2), was, SRC, Forward(9))
    (rest,) = translation.also
    assert rest.actions == (SRC, DST, Forward(2))


# ── SELECT ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_select_is_one_megaflow_for_all_flows() -> None:
    setup = write(Group(1)).group(SELECT, bucket(Output(2), weight=3), bucket(DST, Output(3)), bucket(Output(4), weight=0))
    translation = setup.translate()
    assert translation.actions == (Select(1, (Way(0, (Forward(2),), 3), Way(1, (DST, Forward(3)), 1))),)
    assert translation.mask == IN_PORT.mask
    assert fast(translation.actions)


def test_without_weights_shares_are_equal() -> None:
    setup = write(Group(1)).group(SELECT, bucket(Output(2), weight=0), bucket(Output(3), weight=0))
    assert setup.translate().actions == (Select(1, (Way(0, (Forward(2),), 1), Way(1, (Forward(3),), 1))),)


def test_what_one_way_consults_is_in_the_mask() -> None:
    setup = write(Group(1)).group(SELECT, bucket(Output(2)), bucket(PopVlan(), Output(3)))
    assert setup.translate().mask == IN_PORT.mask | 0x1000 << F["vlan_tci"].shift


def test_select_leaves_out_dead_buckets_and_depends_on_their_ports() -> None:
    setup = write(Group(1)).group(SELECT, bucket(Output(2), watch_port=2), bucket(Output(3), watch_port=3), bucket(Output(4)))
    translation = setup.translate(live=(3,))
    assert [way.bucket for way in _choice(translation).ways] == [1, 2]
    assert translation.watched_ports == {2, 3}
    assert setup.translate().actions == (Forward(4),)
    empty = write(Group(1)).group(SELECT, bucket(Output(2), watch_port=2)).translate()
    assert empty.actions == (Select(1, ()),)


def test_more_ways_than_the_fast_path_has_stay_on_the_slow_path() -> None:
    setup = write(Group(1)).group(SELECT, *[bucket(Output(port)) for port in range(2, MAX_WAYS + 3)])
    assert setup.translate().slow_path_only
    setup.pipeline.groups.modify(1, SELECT, [bucket(Output(port)) for port in range(2, MAX_WAYS + 2)])
    assert not setup.translate().slow_path_only


def test_a_choice_before_the_end_of_a_list_is_made_for_a_copy() -> None:
    setup = apply(Group(1), DST, Output(9)).group(SELECT, bucket(Output(2)), bucket(Output(3)))
    translation = setup.translate()
    choice = Select(1, (Way(0, (Forward(2),)), Way(1, (Forward(3),))))
    assert translation.actions == (Clone((choice,)), DST, Forward(9))
    outputs = apply(Group(1), Output(9)).group(SELECT, bucket(Output(2)), bucket(Output(3))).translate()
    assert outputs.actions == (Forward(9), choice)


# ── FAST FAILOVER ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _choice(translation: Translation) -> Select | Failover:
    choice = translation.actions[-1]
    assert isinstance(choice, Select | Failover)
    return choice


def test_failover_leaves_liveness_to_the_fast_path() -> None:
    setup = write(Group(1)).group(FF, bucket(Output(2), watch_port=2), bucket(Output(3), watch_port=3))
    for live in ((), (2,), (3,)):
        translation = setup.translate(live=live)
        assert translation.actions == (Failover(1, (Way(0, (Forward(2),), 1, 2), Way(1, (Forward(3),), 1, 3))),)
        assert translation.watched_ports == frozenset()
    assert fast(translation.actions)


def test_a_watched_group_is_its_ports() -> None:
    setup = write(Group(1)).group(FF, bucket(Output(2), watch_group=2), bucket(Output(3), watch_group=3), bucket(Output(4)))
    setup.group(FF, bucket(Output(7), watch_port=7), bucket(Output(6), watch_port=6)).group(FF)
    translation = setup.translate()
    assert [(way.bucket, way.watch_port) for way in _choice(translation).ways] == [(0, 6), (0, 7), (2, 0)]
    assert translation.groups == {1, 2, 3}
    assert translation.watched_ports == frozenset()


def test_what_watches_nothing_ends_the_ways() -> None:
    setup = write(Group(1)).group(FF, bucket(Output(2)), bucket(Output(3), watch_port=3))
    assert setup.translate().actions == (Forward(2),)


def test_the_datapath_watches_the_local_port_too() -> None:
    local = int(PortNo.LOCAL)
    setup = write(Group(1)).group(FF, bucket(Output(local), watch_port=local), bucket(Output(3), watch_port=3))
    translation = setup.translate()
    assert [(way.bucket, way.watch_port) for way in _choice(translation).ways] == [(0, local), (1, 3)]
    assert translation.watched_ports == frozenset()


def test_too_many_ways_are_decided_now() -> None:
    ports = range(2, MAX_WAYS + 4)
    setup = write(Group(1)).group(FF, *[bucket(Output(port), watch_port=port) for port in ports])
    translation = setup.translate(live=(9, 20))
    assert translation.actions == (Forward(9),)
    assert translation.watched_ports == set(range(2, 10))
    assert not translation.slow_path_only


# ── who counts ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_hits_are_what_every_packet_meets_and_way_hits_what_those_of_one_way_meet() -> None:
    setup = write(Group(1)).group(ALL, bucket(Output(9)), bucket(Group(2)))
    setup.group(SELECT, bucket(Output(2)), bucket(Group(3))).group(INDIRECT, bucket(Output(3)))
    one, two, three = setup.pipeline.groups
    translation = setup.translate()
    assert translation.actions[0] == Forward(9)
    assert translation.hits == (GroupHit(one), GroupHit(one, one.buckets[0]), GroupHit(one, one.buckets[1]), GroupHit(two))
    assert translation.hits_of_ways == (
        (GroupHit(two, two.buckets[0]),),
        (GroupHit(two, two.buckets[1]), GroupHit(three), GroupHit(three, three.buckets[0])),
    )
    count(translation.hits, 5, 500)
    count(translation.hits_of_ways[1], 2, 200)
    assert [group.packet_count for group in (one, two, three)] == [5, 5, 2]
    assert [item.byte_count for item in two.buckets] == [0, 200]


def test_ways_of_one_bucket_count_for_it() -> None:
    setup = write(Group(1)).group(FF, bucket(Output(2), watch_port=5, watch_group=2), bucket(Output(3)))
    setup.group(FF, bucket(watch_port=6))
    (group, _) = setup.pipeline.groups
    first, last = group.buckets
    assert setup.translate().hits_of_ways == ((GroupHit(group, first),), (GroupHit(group, first),), (GroupHit(group, last),))
    assert apply(Output(2)).translate().hits_of_ways == ()


# ── forks ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_copies_that_need_another_parse_go_their_own_ways() -> None:
    hidden = bucket(PushVlan(0x8100), SetField(F["ipv4_dst"], 1), Output(2))
    setup = Setup(ApplyActions((DST, Group(1), SRC)), WriteActions((Output(9),))).group(ALL, hidden, bucket(Output(3)))
    group = setup.pipeline.groups.get(1)
    assert group is not None
    translation = setup.translate(key_of(1, 2))
    assert translation.actions == (DST,)
    assert translation.slow_path_only
    assert [fork.stage for fork in translation.forks] == [Stage.BUCKET, Stage.BUCKET]
    assert translation.hits == (GroupHit(group), *(GroupHit(group, item) for item in group.buckets))
    after = ETH_DST.put(key_of(1, 2), 5)
    first, second = (resume(setup.pipeline, fork, after) for fork in translation.forks)
    assert first.actions == (PushTag(0x8100, 1),)
    assert first.again is not None
    assert (second.actions, second.again, second.hits) == ((Forward(3),), None, ())
    assert translation.again is not None
    assert resume(setup.pipeline, translation.again, after).actions == (SRC, Forward(9))


def test_a_choice_whose_ways_need_another_parse_is_made_for_each_packet() -> None:
    hidden = [bucket(PushVlan(0x8100), SetField(F["ipv4_dst"], port), Output(port), watch_port=port) for port in (2, 3)]
    for kind in (SELECT, FF):
        setup = write(Group(1)).group(kind, *hidden)
        first = setup.translate(key_of(1, 2), live=(3,))
        assert (first.actions, first.forks, first.hits) == ((), (), ())
        assert first.again is not None
        second = resume(setup.pipeline, first.again, key_of(1, 2), None, (3,).__contains__)
        assert second.again is None
        assert [hit.bucket for hit in second.hits] == [None, hidden[1]]
        (fork,) = second.forks
        assert resume(setup.pipeline, fork, key_of(1, 2)).actions == (PushTag(0x8100, 1),)


def test_a_choice_is_made_only_when_what_it_depends_on_is_known() -> None:
    ipv4 = SetField(F["ipv4_dst"], 1)
    setup = apply(PopVlan(), ipv4, PopVlan(), Group(1)).group(SELECT, bucket(ipv4, Output(2)), bucket(ipv4, Output(3)))
    first = setup.translate(key_of(1, 2, 3, 4))
    assert first.again is not None
    second = resume(setup.pipeline, first.again, key_of(2, 3, 4))
    assert second.again is not None
    assert (second.actions, second.forks, second.hits) == ((PopTag(),), (), ())
    third = resume(setup.pipeline, second.again, key_of(3, 4))
    assert third.again is None
    assert isinstance(third.actions[-1], Select)
