"""Translations that push and pop headers of MPLS and PBB: what is known of the packet behind them."""

from __future__ import annotations

import pytest
from pipeline_support import DST, F, Setup, apply, key_of
from vectors import frames

from appliance.model.actions import (
    Action,
    ApplyActions,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    GotoTable,
    Output,
    PopMpls,
    PopPbb,
    PopVlan,
    PushMpls,
    PushPbb,
    PushVlan,
    SetField,
    SetMplsTtl,
)
from appliance.model.fields import ETH_DST, IN_PORT, MPLS_TTL
from appliance.model.megaflow import Controller, DatapathAction, Forward, PacketInReason, PopTag, PushTag
from appliance.packet.parse import parse


def test_what_is_set_in_a_pushed_header_needs_no_other_parse() -> None:
    label, bos = SetField(F["mpls_label"], 9), SetField(F["mpls_bos"], 0)
    pushed = apply(PushMpls(0x8847), label, bos, SetMplsTtl(4), Output(2)).translate()
    assert pushed.actions == (PushMpls(0x8847), label, bos, SetField(MPLS_TTL, 4), Forward(2))
    assert pushed.mask == IN_PORT.mask
    isid = SetField(F["pbb_isid"], 9)
    pushed = apply(PushPbb(0x88E7), isid, DST, Output(2)).translate()
    assert pushed.actions == (PushPbb(0x88E7), isid, DST, Forward(2))
    assert not pushed.slow_path_only


@pytest.mark.parametrize(
    ("action", "matched", "again"),
    [
        (PushMpls(0x8847), {"eth_type": 0x8847}, False),
        (PushMpls(0x8847), {"eth_type": 0x8847, "mpls_label": 0}, True),
        (PushMpls(0x8847), {"eth_type": 0x8847, "vlan_vid": 0}, False),
        (PushPbb(0x88E7), {"eth_type": 0x88E7}, False),
        (PushPbb(0x88E7), {"eth_type": 0x88E7, "eth_dst": 5}, False),
        (PushPbb(0x88E7), {"eth_type": 0x88E7, "pbb_isid": 0}, True),
    ],
)
def test_what_is_known_behind_a_pushed_header(action: Action, matched: dict[str, int], again: bool) -> None:
    setup = Setup(ApplyActions((action,)), GotoTable(1)).entry(1, ApplyActions((Output(2),)), priority=1, **matched)
    assert (setup.translate().again is not None) is again


def test_what_was_set_in_a_pushed_header_is_matched_later() -> None:
    setup = Setup(ApplyActions((PushMpls(0x8847), SetField(F["mpls_label"], 9))), GotoTable(1))
    setup.entry(1, ApplyActions((Output(2),)), priority=1, eth_type=0x8847, mpls_label=9)
    translation = setup.translate()
    assert translation.actions == (PushMpls(0x8847), SetField(F["mpls_label"], 9), Forward(2))
    assert translation.mask == IN_PORT.mask


def test_what_came_before_does_not_matter_to_a_pushed_header() -> None:
    label = SetField(F["mpls_label"], 9)
    proto = SetField(F["ip_proto"], 17)
    assert apply(proto, PushMpls(0x8847), label, Output(2)).translate().actions == (proto, PushMpls(0x8847), label, Forward(2))
    popped = apply(PopVlan(), PushMpls(0x8847), label, Output(2)).translate(key_of(1, 2, 3))
    assert popped.actions == (PopTag(), PushMpls(0x8847), label, Forward(2))
    other = SetField(ETH_DST, 9)
    assert apply(DST, PushPbb(0x88E7), other, Output(2)).translate().actions == (DST, PushPbb(0x88E7), other, Forward(2))


def test_a_look_up_that_needs_another_parse_asks_for_the_same_bits_of_every_packet() -> None:
    setup = Setup(ApplyActions((PushMpls(0x8847),)), GotoTable(1))
    setup.entry(1, priority=2, ip_ttl=63).entry(1, priority=1, mpls_label=5)
    first = setup.translate()
    assert first.again is not None
    for ttl in (63, 64):
        other = F["mpls_label"].put(F["ip_ttl"].put(key_of(), ttl), 5) & ~first.mask | key_of() & first.mask
        assert setup.translate(other).mask == first.mask


def test_behind_an_i_tag_that_was_popped_nothing_is_known() -> None:
    packet = frames.ethernet(0x88E7, bytes.fromhex("00000007") + frames.ethernet(0x0800, frames.ipv4(6, frames.tcp())))
    key = parse(packet, 1).key
    assert apply(PopPbb(), Output(2)).translate(key).actions == (PopPbb(), Forward(2))
    for field in ({"eth_dst": 5}, {"eth_type": 0x0800}, {"vlan_vid": 0}):
        setup = Setup(ApplyActions((PopPbb(),)), GotoTable(1)).entry(1, ApplyActions((Output(2),)), priority=1, **field)
        assert setup.translate(key).again is not None


@pytest.mark.parametrize(
    ("action", "made"), [(PopVlan(), ()), (PushVlan(0x8100), (PushTag(0x8100, 0),)), (SetField(F["vlan_vid"], 0x1005), ())]
)
def test_no_tag_is_before_a_pushed_header(action: Action, made: tuple[DatapathAction, ...]) -> None:
    translation = apply(PushMpls(0x8847), action, SetField(F["ipv4_dst"], 1), Output(2)).translate()
    assert (translation.actions, translation.again) == ((PushMpls(0x8847), *made, Forward(2)), None)


def test_what_is_behind_a_header_that_was_pushed_and_popped() -> None:
    translation = apply(PushMpls(0x8847), PopMpls(0x0800), SetField(F["ipv4_dst"], 1), Output(2)).translate()
    assert translation.again is not None


def test_pops_of_what_is_not_there_do_nothing() -> None:
    assert apply(PopMpls(0x0800), PopPbb(), DecMplsTtl(), SetMplsTtl(3), Output(2)).translate().actions == (Forward(2),)
    assert apply(PopMpls(0x0800), Output(2)).translate(key_of(ethertype=0x8847)).actions == (PopMpls(0x0800), Forward(2))


def test_mpls_ttls() -> None:
    key = key_of(ethertype=0x8847)
    assert apply(DecMplsTtl(), Output(2)).translate(key).actions == (DecMplsTtl(), Forward(2))
    assert apply(SetMplsTtl(9), DecMplsTtl(), Output(2)).translate(key).actions == (SetField(MPLS_TTL, 8), Forward(2))
    used_up = apply(SetMplsTtl(1), DecMplsTtl(), Output(2)).translate(key).actions
    assert isinstance(used_up[-1], Controller)
    assert used_up[-1].reason is PacketInReason.INVALID_TTL
    copied = apply(SetMplsTtl(9), CopyTtlOut(), CopyTtlIn(), DecMplsTtl(), Output(2)).translate(key)
    assert copied.actions == (SetField(MPLS_TTL, 9), CopyTtlOut(), CopyTtlIn())
    assert copied.again is not None, "what was copied is read where the packet is parsed again"
    pushed = apply(PushVlan(0x8100), PushMpls(0x8847), DecMplsTtl(), Output(2)).translate()
    assert pushed.actions == (PushTag(0x8100, 0), PushMpls(0x8847))
    assert pushed.again is not None
