"""Which rewrites are edits, and for which megaflows. What they do to packets: tests/bpf/test_fast_path_equivalence.py."""

from __future__ import annotations

import pytest

from appliance.datapath.compile import compile_actions
from appliance.datapath.layout import MegaflowFlag
from appliance.model.actions import Meter, SetField
from appliance.model.fields import BY_NAME, IP_PROTO, LAYERS, Layer
from appliance.model.megaflow import DatapathAction, DecTtl, Flood, Forward, PopTag, PushTag

UDP_SRC = SetField(BY_NAME["udp_src"], 1)
TCP_SRC = SetField(BY_NAME["tcp_src"], 1)
ADDRESS = SetField(BY_NAME["ipv4_src"], 0x01020304)
UDP_LAYER = int(Layer.UDP) << LAYERS.shift


@pytest.mark.parametrize(
    ("actions", "is_edit"),
    [
        ((ADDRESS, Forward(1)), True),
        ((DecTtl(), Forward(1)), True),
        ((SetField(BY_NAME["eth_dst"], 1), DecTtl(), UDP_SRC, Forward(1)), True),
        ((Forward(1),), False),
        ((), False),
        ((ADDRESS,), False),
        ((ADDRESS, Flood()), False),
        ((Forward(2), ADDRESS, Forward(1)), False),
        ((PushTag(0x8100, 1), ADDRESS, Forward(1)), True),
        ((PushTag(0x8100, 1), SetField(BY_NAME["vlan_vid"], 5), Forward(1)), True),
        ((ADDRESS, PopTag(), Forward(1)), True),
        ((PopTag(), PushTag(0x8100, 1), Forward(1)), False),
        ((PushTag(0x8100, 1), PushTag(0x8100, 2), Forward(1)), False),
        ((SetField(BY_NAME["vlan_vid"], 5), PushTag(0x8100, 1), Forward(1)), False),
        ((SetField(BY_NAME["ipv6_src"], 1), Forward(1)), False),
        ((UDP_SRC, TCP_SRC, Forward(1)), False),
        ((*[ADDRESS] * 24, Forward(1)), True),
        ((*[ADDRESS] * 25, Forward(1)), False),
    ],
)
def test_fields_of_common_packets_that_go_out_once(actions: tuple[DatapathAction, ...], is_edit: bool) -> None:
    assert (compile_actions(actions).edit is not None) == is_edit


def test_a_metered_megaflow_takes_no_shorter_way() -> None:
    for rest in ((), (Forward(1),), (ADDRESS, Forward(1))):
        compiled = compile_actions((Meter(1), *rest), {1: 0})
        assert compiled.edit is None
        assert not compiled.flags & MegaflowFlag.DIRECT


def test_ports_are_set_where_the_protocol_is_known() -> None:
    edit = compile_actions((UDP_SRC, Forward(1))).edit
    assert edit is not None
    assert edit.suits(UDP_LAYER, UDP_LAYER)
    assert edit.suits(IP_PROTO.put(0, 17), IP_PROTO.mask)
    assert not edit.suits(0, 0)
    assert not edit.suits(0, UDP_LAYER), "what has no UDP"
    assert not edit.suits(IP_PROTO.put(0, 6), IP_PROTO.mask)
    assert not edit.suits(IP_PROTO.put(0, 17), 1 << IP_PROTO.shift), "17 or another"
    address = compile_actions((ADDRESS, Forward(1))).edit
    assert address is not None
    assert address.suits(0, 0), "it is for packets of IPv4 anyway"


def test_a_tag_that_is_changed_after_it_is_pushed_is_pushed_as_it_ends_up() -> None:
    changed = compile_actions(
        (PushTag(0x88A8, 0xF001), SetField(BY_NAME["vlan_vid"], 0x1123), SetField(BY_NAME["vlan_pcp"], 1), Forward(1))
    ).edit
    assert changed == compile_actions((PushTag(0x88A8, 0x3123), Forward(1))).edit


def test_the_last_value_counts() -> None:
    again = compile_actions((SetField(BY_NAME["ipv4_src"], 1), ADDRESS, Forward(1))).edit
    assert again == compile_actions((ADDRESS, Forward(1))).edit
