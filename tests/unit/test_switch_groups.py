"""Groups: how they come, change and go, what packets do in them in either tier, and that every packet is counted once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from switch_shell import Shell, mac, port
from vectors import frames

from appliance.model.actions import Action, ApplyActions, GotoTable, Group, Output, PopVlan, PushVlan, SetField, WriteActions
from appliance.model.fields import BY_NAME, VLAN_PRESENT
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import UpcallReason
from appliance.model.ports import PortConfig, PortNo, PortState
from appliance.openflow.constants import OFPG_ALL, OFPG_ANY, OFPG_MAX, ActionType
from appliance.openflow.errors import BadAction, ErrorType, GroupModFailed
from appliance.openflow.messages import (
    BarrierRequest,
    Bucket,
    Error,
    FlowMod,
    FlowModFlags,
    FlowRemoved,
    FlowRemovedReason,
    FlowStatsReply,
    FlowStatsRequest,
    GroupCapabilities,
    GroupDesc,
    GroupDescReply,
    GroupDescRequest,
    GroupFeatures,
    GroupFeaturesRequest,
    GroupMod,
    GroupModCommand,
    GroupStats,
    GroupStatsReply,
    GroupStatsRequest,
    GroupType,
    MultipartReply,
    MultipartRequest,
    MultipartRequestBody,
    PacketIn,
    PacketOut,
    PortMod,
)
from appliance.switch.effects import RemoveMegaflows
from appliance.switch.events import PortChanged, PortRemoved, Upcalls
from appliance.switch.megaflows import IDLE_SECONDS

ADD, MODIFY, DELETE = GroupModCommand
ALL, SELECT, INDIRECT, FF = GroupType


def frame(src: int = 1, size: int = 60) -> bytes:
    return frames.ethernet(0x1234, bytes(size - 14), dst=mac(0xD0), src=mac(src))


def to(*ports: int, weight: int = 0, watch_port: int = PortNo.ANY, watch_group: int = OFPG_ANY) -> Bucket:
    return Bucket(weight, watch_port, watch_group, tuple(Output(number) for number in ports))


def group(shell: Shell, number: int, kind: GroupType, *buckets: Bucket, command: GroupModCommand = ADD) -> None:
    assert not any(isinstance(told, Error) for told in shell.receive(GroupMod(command, kind, number, buckets)))


def use(shell: Shell, *actions: Action, **mod: object) -> None:
    assert shell.receive(FlowMod(instructions=(ApplyActions(actions),), **mod)) == []  # type: ignore[arg-type]


def ask(shell: Shell, body: MultipartRequestBody) -> object:
    return shell.ask(MultipartRequest(body), MultipartReply).body


def stats(shell: Shell, number: int = 1) -> GroupStats:
    body = ask(shell, GroupStatsRequest(number))
    assert isinstance(body, GroupStatsReply)
    (found,) = body.entries
    return found


def counts(shell: Shell, number: int = 1) -> tuple[int, list[int]]:
    """Packets of the group, and of its buckets. Bytes must go with them: all frames here have 60."""
    found = stats(shell, number)
    assert found.byte_count == 60 * found.packet_count
    assert all(bucket.byte_count == 60 * bucket.packet_count for bucket in found.bucket_stats)
    return found.packet_count, [bucket.packet_count for bucket in found.bucket_stats]


# ── group-mods ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_descriptions_are_as_sent() -> None:
    shell = Shell()
    buckets = {
        1: (ALL, (to(1, 2, weight=5), Bucket(0, 0, 0))),
        7: (FF, (to(1, watch_port=1), to(2, watch_group=1), to(3, watch_port=3, watch_group=99))),
        3: (SELECT, (to(1, weight=1), to(2, weight=0xFFFF), to(3))),
        OFPG_MAX: (INDIRECT, (to(PortNo.IN_PORT),)),
    }
    for number, (kind, wanted) in buckets.items():
        group(shell, number, kind, *wanted)
    reply = ask(shell, GroupDescRequest())
    assert reply == GroupDescReply(tuple(GroupDesc(kind, number, wanted) for number, (kind, wanted) in sorted(buckets.items())))
    group(shell, 1, FF, to(3, watch_port=3), command=MODIFY)
    reply = ask(shell, GroupDescRequest())
    assert isinstance(reply, GroupDescReply)
    assert reply.entries[0] == GroupDesc(FF, 1, (to(3, watch_port=3),))
    group(shell, OFPG_ALL, ALL, command=DELETE)
    assert ask(shell, GroupDescRequest()) == GroupDescReply()


@pytest.mark.parametrize(
    ("mod", "code"),
    [
        (GroupMod(ADD, INDIRECT, 2), GroupModFailed.INVALID_GROUP),
        (GroupMod(ADD, INDIRECT, 2, (to(1), to(2))), GroupModFailed.INVALID_GROUP),
        (GroupMod(ADD, ALL, OFPG_ALL), GroupModFailed.INVALID_GROUP),
        (GroupMod(ADD, ALL, OFPG_ANY), GroupModFailed.INVALID_GROUP),
        (GroupMod(MODIFY, ALL, OFPG_ALL), GroupModFailed.UNKNOWN_GROUP),
        (GroupMod(ADD, ALL, 2, (Bucket(actions=(Group(2),)),)), GroupModFailed.LOOP),
        (GroupMod(MODIFY, ALL, 1, (Bucket(actions=(Group(1),)),)), GroupModFailed.LOOP),
        (GroupMod(ADD, INDIRECT, 2, (to(1, watch_port=1),)), GroupModFailed.WATCH_UNSUPPORTED),
        (GroupMod(ADD, SELECT, 2, (to(1, watch_port=PortNo.FLOOD),)), GroupModFailed.BAD_WATCH),
        (GroupMod(ADD, ALL, 2, (to(1, watch_group=1),)), GroupModFailed.WATCH_UNSUPPORTED),
        (GroupMod(ADD, FF, 2, (to(1, watch_port=0),)), GroupModFailed.BAD_WATCH),
        (GroupMod(ADD, FF, 2, (to(1, watch_port=PortNo.FLOOD),)), GroupModFailed.BAD_WATCH),
        (GroupMod(ADD, FF, 2, (to(1, watch_port=1, watch_group=OFPG_ALL),)), GroupModFailed.BAD_WATCH),
        (GroupMod(MODIFY, FF, 1, (to(1),)), GroupModFailed.BAD_WATCH),
        (GroupMod(MODIFY, ALL, 1, (to(1),) * 1025), GroupModFailed.OUT_OF_BUCKETS),
    ],
)
def test_refused(mod: GroupMod, code: GroupModFailed) -> None:
    shell = Shell()
    group(shell, 1, ALL, to(1))
    before = ask(shell, GroupDescRequest())
    assert shell.refused(mod) == (ErrorType.GROUP_MOD_FAILED, code)
    assert ask(shell, GroupDescRequest()) == before


@pytest.mark.parametrize(
    ("action", "code"),
    [(Output(0), BadAction.BAD_OUT_PORT), (Group(9), BadAction.BAD_OUT_GROUP), (PushVlan(5), BadAction.BAD_ARGUMENT)],
)
def test_buckets_with_bad_actions(action: Action, code: BadAction) -> None:
    assert Shell().refused(GroupMod(ADD, ALL, 1, (Bucket(actions=(action,)),))) == (ErrorType.BAD_ACTION, code)


def test_features() -> None:
    features = ask(Shell(), GroupFeaturesRequest())
    assert isinstance(features, GroupFeatures)
    assert features.types == 0b1111
    assert features.capabilities == (
        GroupCapabilities.SELECT_WEIGHT
        | GroupCapabilities.SELECT_LIVENESS
        | GroupCapabilities.CHAINING
        | GroupCapabilities.CHAINING_CHECKS
    )
    every = sum(1 << kind for kind in ActionType if kind is not ActionType.EXPERIMENTER)
    assert features.actions == (every,) * 4


def test_a_group_that_others_forward_to_stays() -> None:
    shell = Shell()
    group(shell, 1, ALL, to(2))
    group(shell, 2, ALL, Bucket(actions=(Group(1),)))
    use(shell, Group(1))
    assert shell.refused(GroupMod(DELETE, ALL, 1)) == (ErrorType.GROUP_MOD_FAILED, GroupModFailed.CHAINED_GROUP)
    assert stats(shell).ref_count == 2
    group(shell, 2, ALL, command=DELETE)
    group(shell, 1, ALL, command=DELETE)


def test_flow_entries_go_with_their_groups() -> None:
    shell = Shell()
    for number in (1, 2):
        group(shell, number, ALL, to(2))
    tell = FlowModFlags.SEND_FLOW_REM
    use(shell, Group(1), cookie=1, flags=tell, priority=1)
    use(shell, Group(2), cookie=2, flags=tell, priority=2)
    shell.receive(FlowMod(table_id=4, cookie=3, flags=tell, instructions=(WriteActions((Group(1),)),)))
    shell.receive(FlowMod(table_id=4, cookie=4, priority=9, instructions=(WriteActions((Group(1),)),)))
    group(shell, 1, ALL, command=DELETE)
    assert {message.cookie for message in shell.told(FlowRemoved)} == {1, 3}
    assert {message.reason for message in shell.told(FlowRemoved)} == {FlowRemovedReason.GROUP_DELETE}
    left = ask(shell, FlowStatsRequest())
    assert isinstance(left, FlowStatsReply)
    assert [flow.cookie for flow in left.entries] == [2]
    group(shell, OFPG_ALL, ALL, command=DELETE)
    assert len(shell.told(FlowRemoved)) == 3


# ── packets ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_all_sends_to_every_bucket_and_each_has_its_own_copy() -> None:
    shell = Shell(4)
    tag = (PushVlan(0x8100), SetField(BY_NAME["vlan_vid"], VLAN_PRESENT | 5), Output(2))
    group(shell, 1, ALL, Bucket(actions=tag), to(3), to(1), Bucket(actions=(Output(PortNo.IN_PORT),)))
    use(shell, Group(1), Output(4))
    raw = frame()
    tagged = raw[:12] + bytes.fromhex("81000005") + raw[12:]
    for _ in range(3):
        assert sorted(shell.inject(1, raw)) == sorted([(2, tagged), (3, raw), (1, raw), (4, raw)])
    assert counts(shell) == (3, [3, 3, 3, 3])


def test_select_keeps_a_flow_together_and_counts_each_bucket() -> None:
    shell = Shell(4)
    group(shell, 1, SELECT, to(2, weight=3), to(3, weight=1), to(4))
    use(shell, Group(1))
    taken = {2: 0, 3: 0}
    for source in range(200):
        raw = frame(source)
        first, again = shell.inject(1, raw), shell.inject(1, raw)
        assert first == again
        ((out, _),) = first
        taken[out] += 2
    assert 240 < taken[2] < 360
    assert len(shell.switch.megaflows) == 1, "not a megaflow a flow"
    assert counts(shell) == (400, [taken[2], taken[3], 0])


def test_select_without_a_bucket_drops() -> None:
    shell = Shell()
    group(shell, 1, SELECT)
    group(shell, 2, ALL)
    use(shell, Group(1), Group(2))
    for _ in range(2):
        assert shell.inject(1, frame()) == []
    assert counts(shell) == (2, [])


def test_select_leaves_out_dead_buckets() -> None:
    """OFPGFC_SELECT_LIVENESS, by ports and by groups; their packets spread over the rest and come back."""
    shell = Shell()
    group(shell, 9, FF, to(3, watch_port=3))
    group(shell, 1, SELECT, to(2, weight=1, watch_port=2), to(3, weight=1, watch_group=9))
    use(shell, Group(1))
    flows = [frame(number) for number in range(16)]

    def taken() -> set[int]:
        return {number for raw in flows for number, _ in shell.inject(1, raw)}

    assert taken() == {2, 3}
    shell.step(down(2))
    assert taken() == {3}
    shell.step(down(3))
    assert taken() == set()
    shell.step(PortChanged(port(2)))
    assert taken() == {2}
    shell.step(PortChanged(port(3)))
    assert taken() == {2, 3}
    total, buckets = counts(shell)
    assert total == sum(buckets) + len(flows) == 5 * len(flows)


def failover(shell: Shell) -> None:
    group(shell, 1, FF, to(2, watch_port=2), to(3, watch_port=3))
    use(shell, Group(1))


def down(number: int) -> PortChanged:
    return PortChanged(replace(port(number), state=PortState.LINK_DOWN))


def test_failover_leaves_a_dead_port_without_a_new_megaflow() -> None:
    shell = Shell()
    failover(shell)
    raw = frame()
    for _ in range(2):
        assert shell.inject(1, raw) == [(2, raw)]
    misses = sum(shell.switch.upcalls.values())
    effects = shell.step(down(2))
    assert not any(isinstance(effect, RemoveMegaflows) for effect in effects)
    assert shell.inject(1, raw) == [(3, raw)]
    shell.step(down(3))
    assert shell.inject(1, raw) == [], "nothing is live"
    shell.step(PortChanged(port(2)))
    assert shell.inject(1, raw) == [(2, raw)]
    assert sum(shell.switch.upcalls.values()) == misses
    assert counts(shell) == (5, [3, 1])


@pytest.mark.parametrize("lost", ["configured down", "removed"])
def test_ports_are_dead_for_other_reasons_too(lost: str) -> None:
    shell = Shell()
    failover(shell)
    raw = frame()
    assert shell.inject(1, raw) == [(2, raw)]
    if lost == "removed":
        shell.datapath.detach(2)
        shell.step(PortRemoved(2))
    else:
        shell.receive(PortMod(2, port(2).hw_addr, PortConfig.PORT_DOWN, PortConfig.PORT_DOWN))
    assert shell.inject(1, raw) == [(3, raw)]


def test_a_packet_out_takes_the_live_bucket_at_once() -> None:
    shell = Shell()
    failover(shell)
    shell.step(down(2))
    shell.receive(PacketOut(in_port=1, actions=(Group(1),), data=frame()))
    assert shell.datapath.sent == [(3, frame())]
    assert counts(shell) == (1, [0, 1])


def test_groups_are_watched() -> None:
    shell = Shell(4)
    failover(shell)
    group(shell, 2, FF, to(4, watch_group=1), to(1, watch_port=1))
    shell.receive(FlowMod(priority=0xFFFF, instructions=(ApplyActions((Group(2),)),)))
    raw = frame()
    assert shell.inject(3, raw) == [(4, raw)]
    for number in (2, 3):
        assert shell.inject(3, raw) == [(4, raw)], "a bucket of group 1 is live"
        shell.step(down(number))
    shell.step(PortChanged(port(1)))
    assert shell.inject(4, raw) == [(1, raw)]
    group(shell, 1, ALL, to(2), command=MODIFY)
    assert shell.inject(4, raw) == [], "a bucket that watches nothing is live: out of port 4, which it came in by"


def test_groups_behind_groups_and_in_the_action_set() -> None:
    shell = Shell(4)
    group(shell, 3, INDIRECT, to(4))
    group(shell, 2, SELECT, Bucket(1, actions=(Group(3),)))
    group(shell, 1, ALL, Bucket(actions=(Group(2),)), to(2))
    shell.receive(FlowMod(instructions=(WriteActions((Group(1), Output(3))), GotoTable(1))))
    shell.receive(FlowMod(table_id=1))
    raw = frame()
    for _ in range(3):
        assert sorted(shell.inject(1, raw)) == [(2, raw), (4, raw)], "the group decides, not the output"
    assert [counts(shell, number) for number in (1, 2, 3)] == [(3, [3, 3]), (3, [3]), (3, [3])]
    assert stats(shell, 2).ref_count == stats(shell, 1).ref_count == 1


def test_a_bucket_to_the_controller() -> None:
    shell = Shell()
    group(shell, 1, ALL, to(2), Bucket(actions=(Output(PortNo.CONTROLLER),)))
    use(shell, Group(1), cookie=9)
    raw = frame()
    for _ in range(3):
        assert shell.inject(1, raw) == [(2, raw)]
    assert [message.cookie for message in shell.told(PacketIn)] == [9, 9, 9]
    assert counts(shell) == (3, [3, 3])


def test_packets_that_must_be_parsed_again_inside_a_bucket() -> None:
    shell = Shell()
    group(shell, 1, ALL, Bucket(actions=(PopVlan(), PopVlan(), Output(2))), to(3))
    use(shell, Group(1))
    inner = frame()
    raw = inner[:12] + bytes.fromhex("88a80007 81000008") + inner[12:]
    for _ in range(2):
        assert sorted(shell.inject(1, raw), key=lambda sent: sent[0])[-1] == (3, raw)
    found = stats(shell)
    assert (found.packet_count, [bucket.packet_count for bucket in found.bucket_stats]) == (2, [2, 2])


# ── changes under traffic ──────────────────────────────────────────────────────────────────────────────────────────────
def test_a_change_of_a_group_holds_from_the_barrier_on() -> None:
    shell = Shell()
    group(shell, 1, INDIRECT, to(2))
    use(shell, Group(1))
    raw = frame()
    for _ in range(2):
        assert shell.inject(1, raw) == [(2, raw)]
    group(shell, 1, INDIRECT, to(3), command=MODIFY)
    shell.receive(BarrierRequest())
    for _ in range(2):
        assert shell.inject(1, raw) == [(3, raw)]
    assert counts(shell) == (4, [2]), "the group's own counters go on, its buckets' start anew"
    group(shell, 1, INDIRECT, command=DELETE)
    assert shell.inject(1, raw) == []


def test_what_the_fast_path_counted_for_old_buckets_is_not_the_new_ones() -> None:
    shell = Shell()
    group(shell, 1, SELECT, to(2, weight=1))
    use(shell, Group(1))
    for _ in range(5):
        shell.inject(1, frame())
    group(shell, 1, SELECT, to(2, weight=1), command=MODIFY)
    assert counts(shell) == (5, [0])
    for _ in range(3):
        shell.inject(1, frame())
    assert counts(shell) == (8, [3])


def test_a_group_that_is_deleted_and_made_again_has_counted_nothing() -> None:
    shell = Shell()
    group(shell, 1, ALL, to(2))
    use(shell, Group(1))
    for _ in range(3):
        shell.inject(1, frame())
    shell.now += 2.5
    assert (stats(shell).duration_sec, stats(shell).duration_nsec) == (2, 500_000_000)
    group(shell, 1, ALL, command=DELETE)
    group(shell, 1, ALL, to(2))
    assert counts(shell) == (0, [0])
    assert (stats(shell).duration_sec, stats(shell).duration_nsec, stats(shell).ref_count) == (0, 0, 0)


def test_counters_outlive_megaflows() -> None:
    shell = Shell()
    group(shell, 1, SELECT, to(2, weight=1), to(3, weight=1))
    use(shell, Group(1), match=Match.of([MatchField(BY_NAME["in_port"], 1)]))
    for source in range(20):
        shell.inject(1, frame(source))
    shell.now += IDLE_SECONDS + 1
    shell.receive(BarrierRequest())
    total, buckets = counts(shell)
    assert total == sum(buckets) == 20
    use(shell, Output(3), priority=0xFFFF)
    shell.inject(1, frame())
    assert counts(shell) == (total, buckets)
    assert shell.switch.upcalls[UpcallReason.MISS] == 2


def test_a_megaflow_of_a_group_that_is_gone_before_its_packet_is_worked_off() -> None:
    shell = Shell()
    group(shell, 1, ALL, to(2))
    use(shell, Group(1))
    shell.datapath.inject(1, frame())
    group(shell, 1, ALL, command=DELETE)
    upcalls = tuple(shell.datapath.upcalls(9))
    assert shell.step(Upcalls(upcalls)) is not None
    assert shell.datapath.sent == []
