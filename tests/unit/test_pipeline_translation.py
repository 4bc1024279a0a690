"""Translation, case by case: which datapath actions, and exactly which bits of the packet they depend on."""

from __future__ import annotations

import pytest
from vectors import frames

from appliance.model.actions import (
    OFPCML_NO_BUFFER,
    Action,
    ApplyActions,
    ClearActions,
    DecNwTtl,
    ExperimenterAction,
    ExperimenterInstruction,
    GotoTable,
    Instruction,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    SetNwTtl,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, ETH_DST, ETH_TYPE, IN_PORT, IP_TTL, LAYERS, METADATA, VLAN_PRESENT, Field, Layer
from appliance.model.match import MATCH_ALL, Match, MatchField
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PacketInReason, PopTag, PushTag
from appliance.model.ports import PortNo
from appliance.packet.parse import parse
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.xlate import NO_COOKIE, Lookup, Stage, Translation, resume, translate, translate_actions

F = BY_NAME
VLAN_VID, VLAN_PCP = F["vlan_vid"], F["vlan_pcp"]
PRESENT = VLAN_PRESENT << F["vlan_tci"].shift
INNER_PRESENT = VLAN_PRESENT << F["inner_vlan_tci"].shift
IN_PORT_1 = 1 << IN_PORT.shift


def frame(*tcis: int, ttl: int = 64, proto: int = 6) -> bytes:
    payload = frames.tcp() if proto == 6 else frames.udp()
    return frames.ethernet(0x0800, frames.ipv4(proto, payload, ttl=ttl), tuple((0x8100, tci) for tci in tcis))


def key_of(*tcis: int, ttl: int = 64) -> int:
    return parse(frame(*tcis, ttl=ttl), 1).key


def layers(bits: Layer) -> int:
    return int(bits) << LAYERS.shift


def match(**fields: int) -> Match:
    return Match.of(MatchField(F[name], value) for name, value in fields.items())


def entry(*instructions: Instruction, priority: int = 0, cookie: int = 0, **fields: int) -> FlowEntry:
    return FlowEntry(priority, match(**fields), instructions, cookie=cookie)


def apply(*actions: Action) -> ApplyActions:
    return ApplyActions(actions)


def write(*actions: Action) -> WriteActions:
    return WriteActions(actions)


def pipeline(*tables: list[FlowEntry]) -> Pipeline:
    made = Pipeline()
    for table_id, entries in enumerate(tables):
        for item in entries:
            made.table(table_id).add(item)
    return made


def run(*actions: Action, key: int | None = None) -> Translation:
    """Translate a pipeline of one table-miss entry that applies these actions."""
    return translate(pipeline([entry(apply(*actions))]), key_of() if key is None else key)


def changed_by(lookup: Lookup, added: FlowEntry) -> bool:
    """Whether some packet of the megaflow could match this entry, as far as ``known`` says."""
    return not (lookup.key ^ added.match.value) & added.match.mask & lookup.known


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_no_entry_drops_and_counts_a_lookup() -> None:
    translation = translate(Pipeline(), key_of())
    assert translation.actions == ()
    assert translation.mask == IN_PORT.mask
    assert [(lookup.table_id, lookup.entry) for lookup in translation.lookups] == [(0, None)]


def test_a_miss_in_a_later_table_drops_the_action_set_but_not_what_was_applied() -> None:
    tables = pipeline([entry(apply(Output(2)), write(Output(3)), GotoTable(5))])
    translation = translate(tables, key_of())
    assert translation.actions == (Forward(2),)
    assert [lookup.table_id for lookup in translation.lookups] == [0, 5]


def test_instructions_run_in_the_order_of_the_specification() -> None:
    tables = pipeline(
        [entry(GotoTable(1), write(Output(9)))],
        [entry(write(Output(3)), WriteMetadata(5, 7), ClearActions(), apply(Output(PortNo.CONTROLLER, 64)), GotoTable(2))],
        [entry(priority=1, metadata=5)],
    )
    translation = translate(tables, key_of())
    # applied before the metadata is written; cleared before the write
    assert translation.actions == (Controller(PacketInReason.NO_MATCH, 1, 0, 64, 0), Forward(3))
    assert METADATA.get(translation.lookups[2].key) == 5


def test_metadata_is_never_in_the_mask_and_always_known() -> None:
    tables = pipeline([entry(WriteMetadata(0xAB, 0xFF), GotoTable(1))], [entry(apply(Output(2)), priority=1, metadata=0xAB)])
    translation = translate(tables, METADATA.put(key_of(), 0xFFFF))
    assert translation.actions == (Forward(2),)
    assert translation.mask == IN_PORT.mask
    assert translation.lookups[0].key & METADATA.mask == 0
    assert translation.lookups[1].known & METADATA.mask == METADATA.mask


def test_lookups_say_what_was_matched_with_which_key() -> None:
    first = entry(apply(SetField(ETH_DST, 5)), GotoTable(1), priority=3, eth_type=0x0800)
    second = entry(priority=1, eth_dst=5)
    translation = translate(pipeline([first], [second]), key_of())
    assert [lookup.entry for lookup in translation.lookups] == [first, second]
    assert translation.mask == IN_PORT.mask | ETH_TYPE.mask
    zero, one = translation.lookups
    assert ETH_DST.get(zero.key) != 5
    assert not zero.known & ETH_DST.mask
    assert ETH_DST.get(one.key) == 5
    assert one.known & ETH_DST.mask == ETH_DST.mask


def test_what_a_later_table_asks_for_is_known_in_the_earlier_too() -> None:
    tables = pipeline([entry(GotoTable(1))], [entry(priority=1, eth_dst=5)])
    zero = translate(tables, key_of()).lookups[0]
    assert zero.known & ETH_DST.mask == ETH_DST.mask
    assert not changed_by(zero, entry(priority=9, eth_dst=5))
    assert changed_by(zero, entry(priority=9, eth_src=5))


# ── output ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("port", "actions"),
    [
        (2, (Forward(2),)),
        (1, ()),
        (4095, (Forward(4095),)),
        (4096, ()),
        (0, ()),
        (PortNo.IN_PORT, (Forward(1),)),
        (PortNo.FLOOD, (Flood(),)),
        (PortNo.ALL, (Flood(),)),
        (PortNo.LOCAL, (Forward(PortNo.LOCAL),)),
        (PortNo.NORMAL, ()),
        (PortNo.TABLE, ()),
        (PortNo.CONTROLLER, (Controller(PacketInReason.NO_MATCH, 0, 0, 128),)),
    ],
)
def test_output(port: int, actions: tuple[DatapathAction, ...]) -> None:
    translation = run(Output(port, 128))
    assert translation.actions == actions
    assert translation.mask == IN_PORT.mask


def test_a_packet_in_tells_the_entry_that_sent_it() -> None:
    tables = pipeline(
        [entry(write(Output(PortNo.CONTROLLER, 32)), WriteMetadata(6, 6), GotoTable(1), priority=2, cookie=77, in_port=1)],
        [entry(cookie=88)],
    )
    assert translate(tables, key_of()).actions == (Controller(PacketInReason.ACTION, 0, 77, 32, 6),)


def test_normal_asks_its_hook_and_depends_on_what_that_consulted() -> None:
    asked: list[int] = []

    def hook(key: int) -> Translation:
        asked.append(key)
        return Translation(key, ETH_DST.mask | VLAN_VID.mask, (Forward(7),))

    tables = pipeline([entry(apply(SetField(ETH_DST, 5), Output(PortNo.NORMAL)))])
    translation = translate(tables, key_of(), hook)
    assert translation.actions == (SetField(ETH_DST, 5), Forward(7))
    assert translation.mask == IN_PORT.mask | VLAN_VID.mask
    assert list(translation.normal_keys) == asked == [ETH_DST.put(key_of(), 5)]


# ── set-field ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "value", "consulted"),
    [
        ("eth_dst", 5, 0),
        ("eth_type", 0x1234, 0),
        ("ip_dscp", 3, layers(Layer.IP)),
        ("ip_proto", 17, layers(Layer.IP)),
        ("ipv4_src", 3, layers(Layer.IPV4)),
        ("tcp_dst", 3, layers(Layer.TCP)),
    ],
)
def test_a_set_field_depends_only_on_its_header_being_there(name: str, value: int, consulted: int) -> None:
    translation = run(SetField(F[name], value), Output(2))
    assert translation.actions == (SetField(F[name], value), Forward(2))
    assert translation.mask == IN_PORT.mask | consulted


@pytest.mark.parametrize(
    ("name", "consulted"),
    [
        ("ipv6_src", layers(Layer.IPV6)),
        ("udp_dst", layers(Layer.UDP)),
        ("arp_op", layers(Layer.ARP)),
        ("mpls_label", layers(Layer.MPLS)),
        ("icmpv4_type", layers(Layer.ICMP)),
        ("vlan_vid", PRESENT),
        ("vlan_pcp", PRESENT),
    ],
)
def test_a_set_field_without_its_header_does_nothing(name: str, consulted: int) -> None:
    translation = run(SetField(F[name], 1), Output(2))
    assert translation.actions == (Forward(2),)
    assert translation.mask == IN_PORT.mask | consulted


@pytest.mark.parametrize(("name", "there"), [("icmpv4_code", False), ("icmpv6_code", True)])
def test_icmp_fields_also_need_their_version_of_ip(name: str, there: bool) -> None:
    key = parse(frames.ethernet(0x86DD, frames.ipv6(58, frames.icmp(128, 0))), 1).key
    translation = run(SetField(F[name], 1), Output(2), key=key)
    assert (SetField(F[name], 1) in translation.actions) is there
    assert translation.mask == IN_PORT.mask | layers(Layer.ICMP) | layers(Layer.IPV6 if there else Layer.IPV4)


def test_only_the_last_set_before_an_output_counts() -> None:
    one, two, three = (SetField(ETH_DST, value) for value in (1, 2, 3))
    src = SetField(F["eth_src"], 9)
    assert run(one, src, two, Output(2), three).actions == (src, two, Forward(2))
    assert run(one, Output(2), two, Output(3)).actions == (one, Forward(2), two, Forward(3))
    assert run(one, Output(2), one, Output(3)).actions == (one, Forward(2), Forward(3))


def test_a_tunnel_id_is_matched_later_and_set_for_what_leaves() -> None:
    tables = pipeline([entry(apply(SetField(F["tunnel_id"], 9)), GotoTable(1))], [entry(apply(Output(2)), priority=1, tunnel_id=9)])
    translation = translate(tables, key_of())
    assert translation.actions == (SetField(F["tunnel_id"], 9), Forward(2))
    assert translation.mask == IN_PORT.mask


# ── TTL ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_fast_path_decrements_each_packets_own_ttl() -> None:
    translation = run(DecNwTtl(), Output(2), DecNwTtl())
    assert translation.actions == (DecTtl(), Forward(2), DecTtl())
    assert translation.mask == IN_PORT.mask | layers(Layer.IP)


def test_a_ttl_that_was_set_is_decremented_here() -> None:
    assert run(SetNwTtl(9), DecNwTtl(), Output(2), DecNwTtl(), Output(3)).actions == (
        SetField(IP_TTL, 8),
        Forward(2),
        SetField(IP_TTL, 7),
        Forward(3),
    )
    assert run(DecNwTtl(), SetNwTtl(64), Output(2)).actions == (DecTtl(), SetField(IP_TTL, 64), Forward(2))


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_ttl_set_and_used_up_ends_the_way(ttl: int) -> None:
    tables = pipeline(
        [entry(apply(Output(2), SetNwTtl(ttl), DecNwTtl(), Output(3)), write(Output(4)), GotoTable(1), cookie=5)], [entry()]
    )
    translation = translate(tables, key_of())
    used_up = Controller(PacketInReason.INVALID_TTL, 0, 5, OFPCML_NO_BUFFER)
    assert translation.actions == (Forward(2), SetField(IP_TTL, ttl), used_up)
    assert len(translation.lookups) == 1


def test_ttl_of_something_else_than_ip_is_left_alone() -> None:
    key = parse(frames.ethernet(0x0806, frames.arp()), 1).key
    translation = run(SetNwTtl(3), DecNwTtl(), Output(2), key=key)
    assert translation.actions == (Forward(2),)
    assert translation.mask == IN_PORT.mask | layers(Layer.IP)


def test_a_ttl_that_the_fast_path_decrements_is_not_known_here() -> None:
    tables = pipeline([entry(apply(DecNwTtl()), GotoTable(1))], [entry(priority=1, ip_ttl=63)])
    assert translate(tables, key_of(ttl=64)).again is not None
    tables = pipeline([entry(apply(DecNwTtl(), SetNwTtl(63)), GotoTable(1))], [entry(priority=1, ip_ttl=63)])
    translation = translate(tables, key_of(ttl=64))
    assert translation.again is None
    assert translation.lookups[1].entry is not None
    assert translation.lookups[1].known & IP_TTL.mask == IP_TTL.mask


# ── VLAN ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_push_on_an_untagged_packet_has_vid_and_pcp_0() -> None:
    translation = run(PushVlan(0x8100), Output(2))
    assert translation.actions == (PushTag(0x8100, 0), Forward(2))
    assert translation.mask == IN_PORT.mask | PRESENT


def test_push_copies_vid_and_pcp_of_the_outermost_tag() -> None:
    translation = run(PushVlan(0x88A8), Output(2), key=key_of(0x6064))
    assert translation.actions == (PushTag(0x88A8, 0x6064), Forward(2))
    assert translation.mask == IN_PORT.mask | F["vlan_tci"].mask


def test_what_is_set_in_a_pushed_tag_is_pushed_at_once() -> None:
    actions = (PushVlan(0x8100), SetField(ETH_DST, 1), SetField(VLAN_VID, 0x1005), SetField(VLAN_PCP, 2), Output(2))
    assert run(*actions).actions == (PushTag(0x8100, 0x4005), SetField(ETH_DST, 1), Forward(2))
    later = run(PushVlan(0x8100), Output(2), SetField(VLAN_VID, 0x1005), Output(3))
    assert later.actions == (PushTag(0x8100, 0), Forward(2), SetField(VLAN_VID, 0x1005), Forward(3))


def test_pop_asks_only_whether_there_is_a_tag() -> None:
    translation = run(PopVlan(), Output(2), key=key_of(0x64))
    assert translation.actions == (PopTag(), Forward(2))
    assert translation.mask == IN_PORT.mask | PRESENT
    assert run(PopVlan(), Output(2)).actions == (Forward(2),)


def popped_then_matched(*tcis: int, **fields: int) -> Translation:
    tables = pipeline([entry(apply(PopVlan()), GotoTable(1))], [entry(apply(Output(2)), priority=1, **fields)])
    return translate(tables, key_of(*tcis))


def test_behind_a_popped_tag_comes_the_inner_one() -> None:
    translation = popped_then_matched(0x64, 0x65, vlan_vid=0x1065)
    assert translation.actions == (PopTag(), Forward(2))
    inner_vid = VLAN_VID.max << F["inner_vlan_tci"].shift
    assert translation.mask == IN_PORT.mask | PRESENT | inner_vid | ETH_TYPE.mask
    assert VLAN_VID.get(translation.lookups[1].key) == 0x1065
    assert translation.lookups[1].known & F["vlan_tci"].mask == VLAN_VID.mask


def test_one_tag_popped_leaves_none() -> None:
    translation = popped_then_matched(0x64, vlan_vid=0)
    assert translation.actions == (PopTag(), Forward(2))
    assert not translation.slow_path_only


def test_popping_a_third_tag_into_view_needs_another_parse() -> None:
    key = key_of(1, 2, 3)
    assert ETH_TYPE.get(key) == 0x8100
    assert not run(PopVlan(), Output(2), key=key).slow_path_only
    translation = popped_then_matched(1, 2, 3, eth_type=0x0800)
    assert translation.again is not None
    assert translation.again.stage is Stage.LOOKUP
    assert translation.actions == (PopTag(),)
    assert len(translation.lookups) == 1


def test_resuming_goes_on_in_the_same_table_with_the_same_metadata_and_action_set() -> None:
    tables = pipeline(
        [entry(apply(PopVlan()), write(Output(PortNo.CONTROLLER, 9)), WriteMetadata(3, 3), GotoTable(1), cookie=4)],
        [entry(apply(Output(2)), priority=1, eth_type=0x0800, metadata=3)],
    )
    first = translate(tables, key_of(1, 2, 3))
    assert first.again is not None
    second = resume(tables, first.again, key_of(2, 3))
    assert second.actions == (Forward(2), Controller(PacketInReason.NO_MATCH, 0, 4, 9, 3))
    assert second.slow_path_only
    assert second.again is None
    assert [lookup.table_id for lookup in second.lookups] == [1]


def test_a_third_tag_pushed_hides_what_is_behind() -> None:
    ipv4 = SetField(F["ipv4_dst"], 1)
    one = run(PushVlan(0x8100), ipv4, Output(2), key=key_of(5))
    assert one.actions == (PushTag(0x8100, 5), ipv4, Forward(2))
    assert one.mask == IN_PORT.mask | F["vlan_tci"].mask | INNER_PRESENT | layers(Layer.IPV4)
    two = run(PushVlan(0x8100), ipv4, Output(2), key=key_of(5, 6))
    assert two.again is not None
    assert (two.again.stage, two.again.pending) == (Stage.APPLY, (ipv4, Output(2)))
    assert two.actions == (PushTag(0x8100, 5),)
    back = run(PushVlan(0x8100), PopVlan(), ipv4, Output(2), key=key_of(5, 6))
    assert back.again is None
    assert ipv4 in back.actions


@pytest.mark.parametrize(("tcis", "pushes", "hidden"), [((), 2, False), ((5,), 2, True), ((), 3, True), ((5, 6), 0, False)])
def test_how_many_pushed_tags_hide_what_is_behind(tcis: tuple[int, ...], pushes: int, hidden: bool) -> None:
    ipv4 = SetField(F["ipv4_dst"], 1)
    translation = run(*[PushVlan(0x8100)] * pushes, ipv4, Output(2), key=key_of(*tcis))
    assert (translation.again is not None) is hidden
    assert (ipv4 in translation.actions) is not hidden


def test_what_was_set_in_a_tag_is_still_known_when_it_comes_back() -> None:
    actions = (PopVlan(), SetField(VLAN_VID, 0x1009), PushVlan(0x8100), PopVlan())
    tables = pipeline([entry(apply(*actions), GotoTable(1))], [entry(apply(Output(2)), priority=1, vlan_vid=0x1009)])
    translation = translate(tables, key_of(1, 2))
    assert translation.actions[-1] == Forward(2)
    # the inner tag's VID was never asked for; its PCP was, by the push
    inner = F["inner_vlan_tci"]
    assert inner.get(translation.mask) == 0xE000 | VLAN_PRESENT


def test_after_a_tag_was_pushed_or_popped_nothing_is_known_of_what_is_behind_if_it_may_have_changed() -> None:
    def second_lookup(action: Action, *tcis: int) -> Translation:
        ip = entry(apply(action), GotoTable(1), priority=1, eth_type=0x0800)
        return translate(pipeline([ip, entry(apply(action), GotoTable(1))], [entry()]), key_of(*tcis))

    for hidden in (second_lookup(PopVlan(), 1, 2, 3), second_lookup(PushVlan(0x8100), 1, 2)):
        assert hidden.lookups[0].known & ETH_TYPE.mask
        assert not hidden.lookups[1].known & ETH_TYPE.mask
        assert changed_by(hidden.lookups[1], entry(priority=5, eth_type=0x8100))
    for seen in (second_lookup(PopVlan(), 1, 2), second_lookup(PushVlan(0x8100), 1)):
        assert seen.lookups[1].known & ETH_TYPE.mask == ETH_TYPE.mask


# ── fields that say what headers there are ─────────────────────────────────────────────────────────────────────────────
def set_then_matched(field: Field, value: int, key: int | None = None, **fields: int) -> Translation:
    tables = pipeline([entry(apply(SetField(field, value)), GotoTable(1))], [entry(apply(Output(2)), priority=1, **fields)])
    return translate(tables, key_of() if key is None else key)


ND_KEY = parse(frames.ethernet(0x86DD, frames.ipv6(58, frames.nd(135, frames.IPV6_B))), 1).key


@pytest.mark.parametrize(
    ("name", "value", "key", "matched", "stale"),
    [
        ("eth_type", 0x1234, None, {"eth_type": 0x1234}, False),
        ("eth_type", 0x1234, None, {"vlan_vid": 0}, False),
        ("eth_type", 0x1234, None, {"ipv4_dst": 1}, True),
        ("eth_type", 0x8100, None, {"eth_type": 0x8100}, True),
        ("eth_type", 0x8100, None, {"vlan_vid": 0}, True),
        ("eth_type", 0x8100, None, {"eth_dst": 1}, False),
        ("ip_proto", 17, None, {"ip_proto": 17}, False),
        ("ip_proto", 17, None, {"ipv4_dst": 1}, False),
        ("ip_proto", 17, None, {"udp_dst": 2000}, True),
        ("ip_proto", 60, ND_KEY, {"ip_proto": 60}, True),
        ("icmpv6_type", 128, ND_KEY, {"icmpv6_type": 128}, False),
        ("icmpv6_type", 128, ND_KEY, {"ipv6_nd_target": 1}, True),
        ("icmpv6_code", 1, ND_KEY, {"ipv6_nd_target": 1}, True),
        ("ipv6_dst", 1, ND_KEY, {"ipv6_nd_target": 1}, False),
    ],
)
def test_what_is_stale_after_a_set_field(name: str, value: int, key: int | None, matched: dict[str, int], stale: bool) -> None:
    assert (set_then_matched(F[name], value, key, **matched).again is not None) is stale


def test_a_written_field_is_stale_after_its_header_has_changed() -> None:
    tables = pipeline(
        [entry(apply(SetField(F["tcp_dst"], 80), SetField(F["ip_proto"], 17)), GotoTable(1))], [entry(priority=1, udp_dst=80)]
    )
    assert translate(tables, key_of()).again is not None


def test_nothing_counts_in_a_new_protocols_checksum_before_it_was_parsed() -> None:
    proto, src = SetField(F["ip_proto"], 17), SetField(F["ipv4_src"], 1)
    translation = run(proto, src, Output(2))
    assert translation.actions == (proto,)
    assert translation.again is not None
    assert translation.again.pending == (src, Output(2))
    assert run(src, proto, SetField(ETH_DST, 1), Output(2)).again is None


def test_the_action_set_can_be_resumed_in_the_middle() -> None:
    tables = pipeline([entry(write(SetField(ETH_TYPE, 0x86DD), SetField(F["ipv6_dst"], 1), Output(2)))])
    key = key_of()
    # set in the order of writing: the second needs a header that only the first brings to light
    first = translate(tables, key)
    assert first.again is not None
    assert first.again.stage is Stage.ACTION_SET
    second = resume(tables, first.again, ETH_TYPE.put(LAYERS.put(key, int(Layer.IPV6)), 0x86DD))
    assert second.actions == (SetField(F["ipv6_dst"], 1), Forward(2))


# ── packet-out ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_packet_out_runs_its_actions_alone() -> None:
    tables = pipeline([entry(apply(Output(9)))])
    key = IN_PORT.put(key_of(), PortNo.CONTROLLER)
    actions = (SetField(ETH_DST, 5), Output(1), Output(PortNo.IN_PORT), Output(PortNo.CONTROLLER, 7), Output(PortNo.FLOOD))
    translation = translate_actions(tables, key, actions)
    to_controller = Controller(PacketInReason.ACTION, 0, NO_COOKIE, 7)
    assert translation.actions == (SetField(ETH_DST, 5), Forward(1), to_controller, Flood())
    assert translation.lookups == ()


def test_a_packet_out_to_the_tables_matches_there_with_its_changes() -> None:
    tables = pipeline([entry(apply(Output(3)), priority=1, eth_dst=5)])
    translation = translate_actions(tables, key_of(), (SetField(ETH_DST, 5), Output(2), Output(PortNo.TABLE)))
    assert translation.actions == (SetField(ETH_DST, 5), Forward(2), Forward(3))
    assert [lookup.table_id for lookup in translation.lookups] == [0]
    assert translation.also == ()


def test_what_follows_an_output_to_the_tables_is_done_to_another_copy() -> None:
    tables = pipeline([entry(apply(SetField(F["eth_src"], 8), Output(3)))])
    dst, table = SetField(ETH_DST, 5), Output(PortNo.TABLE)
    translation = translate_actions(tables, key_of(), (dst, Output(2), table, SetField(ETH_DST, 6), table, Output(4)))
    assert translation.actions == (dst, Forward(2), SetField(F["eth_src"], 8), Forward(3))
    second, third = translation.also
    assert second.actions == (SetField(ETH_DST, 6), SetField(F["eth_src"], 8), Forward(3))
    assert third.actions == (SetField(ETH_DST, 6), Forward(4))
    assert second.also == third.also == ()


# ── what the pipeline does not have ────────────────────────────────────────────────────────────────────────────────────
def test_an_action_that_it_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="Experimenter"):
        run(ExperimenterAction(1, b""))


def test_an_instruction_that_it_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="Experimenter"):
        FlowEntry(1, MATCH_ALL, (ExperimenterInstruction(1, b""),))
