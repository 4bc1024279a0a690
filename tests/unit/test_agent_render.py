"""Matches, instructions and megaflows in words."""

from __future__ import annotations

import pytest

from appliance.agent import render
from appliance.model import actions as act
from appliance.model.fields import BY_NAME, KEY_MASK, OXM_FIELDS
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import Controller, DecTtl, Flood, Forward, Megaflow, PacketInReason, PopTag, PushTag
from appliance.packet.parse import parse


def field(name: str, value: int, mask: int | None = None) -> MatchField:
    return MatchField(BY_NAME[name], value, mask)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (field("in_port", 3), "in_port=3"),
        (field("in_port", 0xFFFFFFFE), "in_port=LOCAL"),
        (field("eth_dst", 0x0180C2000000, 0xFFFFFFFFFFF0), "eth_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0"),
        (field("eth_type", 0x800), "eth_type=0x0800"),
        (field("vlan_vid", 0x1064), "vlan_vid=100"),
        (field("vlan_vid", 0), "vlan_vid=none"),
        (field("vlan_vid", 0x1000, 0x1000), "vlan_vid=0x1000/0x1000"),
        (field("ipv4_src", 0x0A000000, 0xFF000000), "ipv4_src=10.0.0.0/8"),
        (field("ipv4_src", 0x0A000001, 0xFF0000FF), "ipv4_src=10.0.0.1/255.0.0.255"),
        (field("ipv4_src", 0x0A000001, 0xFFFFFFFF), "ipv4_src=10.0.0.1"),
        (field("ipv6_dst", 0x20010DB8 << 96, 0xFFFFFFFF << 96), "ipv6_dst=2001:db8::/32"),
        (field("tcp_dst", 80), "tcp_dst=80"),
        (field("metadata", 5, 0xFF), "metadata=0x0000000000000005/0x00000000000000ff"),
        (field("pbb_isid", 7, 0xF), "pbb_isid=7/0xf"),
    ],
)
def test_a_field_of_a_match(item, text):
    assert render.one_line(render.match_fields(Match.of([item]))) == text


def test_a_match_keeps_the_controllers_order_and_an_empty_one_is_any():
    match = Match.of([field("tcp_dst", 80), field("ip_proto", 6), field("eth_type", 0x800)])
    assert render.one_line(render.match_fields(match)) == "tcp_dst=80,ip_proto=6,eth_type=0x0800"
    assert render.one_line(render.match_fields(Match())) == "any"


@pytest.mark.parametrize(
    ("instructions", "text"),
    [
        ((), "drop"),
        (
            (act.ApplyActions((act.Output(2), act.Output(0xFFFFFFFB))), act.GotoTable(3)),
            "apply_actions(output:2,output:FLOOD),goto_table:3",
        ),
        ((act.WriteActions((act.Output(0xFFFFFFFD, 128),)),), "write_actions(output:CONTROLLER:128)"),
        ((act.ApplyActions((act.Output(0xFFFFFFFD),)),), "apply_actions(output:CONTROLLER)"),
        ((act.ClearActions(), act.WriteMetadata(1, 0xF), act.Meter(4)), "clear_actions,write_metadata:0x1/0xf,meter:4"),
        ((act.WriteMetadata(1, (1 << 64) - 1),), "write_metadata:0x1"),
        (
            (act.ApplyActions((act.PushVlan(0x8100), act.SetField(BY_NAME["vlan_vid"], 0x1064), act.PopVlan(), act.DecNwTtl())),),
            "apply_actions(push_vlan:0x8100,set_field:100->vlan_vid,pop_vlan,dec_nw_ttl)",
        ),
        (
            (act.ApplyActions((act.SetField(BY_NAME["ipv4_dst"], 0x0A000001), act.SetNwTtl(9))),),
            "apply_actions(set_field:10.0.0.1->ipv4_dst,set_nw_ttl:9)",
        ),
        (
            (act.ApplyActions((act.Group(1), act.SetQueue(2), act.PopMpls(0x800))),),
            "apply_actions(group:1,set_queue:2,pop_mpls:0x0800)",
        ),
        ((act.ExperimenterInstruction(0x2320, b"\x01"),), "experimenter:0x00002320:01"),
    ],
)
def test_instructions(instructions, text):
    assert render.instructions(instructions) == text


def test_every_action_has_a_text():
    plain = [
        act.PushMpls(0x8847),
        act.PushPbb(0x88E7),
        act.PopPbb(),
        act.SetMplsTtl(1),
        act.DecMplsTtl(),
        act.CopyTtlOut(),
        act.CopyTtlIn(),
    ]
    text = render.instructions([act.ApplyActions((*plain, act.ExperimenterAction(1, b"\xff")))])
    assert text == (
        "apply_actions(push_mpls:0x8847,push_pbb:0x88e7,pop_pbb,set_mpls_ttl:1,dec_mpls_ttl,"
        "copy_ttl_out,copy_ttl_in,experimenter:0x00000001:ff)"
    )


# ── megaflows ──────────────────────────────────────────────────────────────────────────────────────────────────────────
TCP = bytes.fromhex(
    "020000000002"
    "020000000001"
    "8100"
    "6064"
    "0800"  # VLAN 100, PCP 3
    "45b8002800004000"
    "40060000"
    "0a000001"
    "0a000002"
    "3039005000000000000000005002000000000000"
)
ARP = bytes.fromhex("ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000002")


def fields_of(frame: bytes, *names: str) -> tuple[int, int]:
    """Key and mask of a megaflow that looks at these fields of a frame."""
    mask = 0
    for name in names:
        mask |= BY_NAME[name].mask
    return parse(frame, 1).key & mask, mask


def test_a_megaflow_shows_the_fields_that_its_packets_have():
    key, mask = fields_of(
        TCP, "in_port", "eth_type", "vlan_vid", "vlan_pcp", "ip_proto", "ipv4_dst", "tcp_dst", "ip_ttl", "ip_frag"
    )
    assert render.one_line(render.key_fields(key, mask)) == (
        "in_port=1,eth_type=0x0800,vlan_vid=100,vlan_pcp=3,ip_proto=6,ipv4_dst=10.0.0.2,tcp_dst=80,ip_ttl=64,ip_frag=none"
    )
    key, mask = fields_of(ARP, "eth_type", "arp_op", "arp_tpa", "arp_sha")
    assert render.one_line(render.key_fields(key, mask)) == "eth_type=0x0806,arp_op=1,arp_tpa=10.0.0.2,arp_sha=02:00:00:00:00:01"


def test_headers_that_must_or_must_not_be_there():
    key, mask = fields_of(TCP, "eth_type")
    layers = BY_NAME["layers"]
    key |= layers.put(0, 8)
    mask |= layers.put(0, 8 | 64)
    assert render.one_line(render.key_fields(key, mask)) == "eth_type=0x0800,layers=ipv4|!udp"


def test_bits_that_belong_to_no_field_that_applies_are_shown_too():
    mask = BY_NAME["ipv4_dst"].mask | BY_NAME["in_port"].mask
    assert render.key_fields(1 << BY_NAME["in_port"].shift, mask)[0] == ("in_port", "1", None)
    assert render.key_fields(1 << BY_NAME["in_port"].shift, mask)[1][0] == "other"


@pytest.mark.parametrize("frame", [TCP, ARP, b"", TCP[:30]])
def test_nothing_of_an_exact_megaflow_is_left_out(frame):
    key = parse(frame, 1).key
    shown = render.key_fields(key, KEY_MASK)
    names = [name for name, _, _ in shown]
    assert len(names) == len(set(names))
    covered = 0
    for name, _, mask in shown:
        covered |= int(mask, 16) if name == "other" else BY_NAME[name].mask
    assert covered == KEY_MASK


def test_a_megaflow_on_no_tag_says_so():
    key, mask = fields_of(ARP, "vlan_vid", "vlan_pcp")
    assert render.one_line(render.key_fields(key, mask)) == "vlan_vid=none,vlan_pcp=0"


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        ((), "drop"),
        (
            (PushTag(0x8100, 3 << 13 | 100), Forward(2), PopTag(), Flood()),
            "push_vlan:0x8100(vid=100,pcp=3),output:2,pop_vlan,flood",
        ),
        ((DecTtl(), act.SetField(BY_NAME["eth_dst"], 1), Forward(1)), "dec_nw_ttl,set_field:00:00:00:00:00:01->eth_dst,output:1"),
        ((Controller(PacketInReason.NO_MATCH, 2, 0, 128),), "controller(no_match,table=2)"),
    ],
)
def test_datapath_actions(actions, text):
    assert render.datapath_actions(Megaflow(1, 0, 0, actions)) == text


def test_every_field_has_a_text_for_every_value():
    for item in OXM_FIELDS:
        for value in (0, 1, item.max):
            assert render.field_text(item, value)[1]
            assert render.field_text(item, value, value or 1)[1]
