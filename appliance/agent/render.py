"""Matches, instructions and megaflows in words, for people: what ``ofswitch flows`` and ``ofswitch megaflows`` show.

The words are OpenFlow's (and ovs-ofctl's, where it has some). Invariant: what is shown of a megaflow is all of it: bits of its
mask that belong to no field that applies are shown as ``other``.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from appliance.model import actions as act
from appliance.model import plugin
from appliance.model.actions import Action, Instruction
from appliance.model.fields import (
    BY_NAME,
    ETH_TYPE,
    INTERNAL_FIELDS,
    MATCH_FIELDS,
    PLUGIN_BITS,
    VLAN_PRESENT,
    VLAN_TCI,
    VLAN_VID,
    Field,
    Fragment,
    Layer,
)
from appliance.model.match import Match
from appliance.model.megaflow import (
    FIRST_AGAIN,
    Again,
    CallPlugin,
    Clone,
    Controller,
    DatapathAction,
    DecTtl,
    Failover,
    Flood,
    Forward,
    Megaflow,
    PopTag,
    PushTag,
    Select,
    is_again,
)
from appliance.model.ports import PortNo

FieldText = tuple[str, str, str | None]
"""Name, value, and mask (None where the whole field counts)."""

_IN_PHY_PORT = BY_NAME["in_phy_port"]
_IP_FRAG = BY_NAME["ip_frag"]
_SHOWN = tuple(field for field in (*MATCH_FIELDS, *INTERNAL_FIELDS, PLUGIN_BITS) if field not in (_IN_PHY_PORT, VLAN_TCI))


# ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def port(number: int) -> str:
    """A port's number, or the name of a reserved one (``CONTROLLER``)."""
    try:
        return PortNo(number).name
    except ValueError:
        return str(number)


def value(field: Field, number: int) -> str:
    """One value of a field (or a mask of it)."""
    match field.display:
        case "mac":
            return number.to_bytes(6, "big").hex(":")
        case "ipv4":
            return str(IPv4Address(number))
        case "ipv6":
            return str(IPv6Address(number))
        case "hex":
            return f"{number:#0{2 + (field.bits + 3) // 4}x}"
    return str(number)


def field_text(field: Field, number: int, mask: int | None = None) -> FieldText:
    """A field as matched on; ``mask`` None or with all bits is an exact match."""
    if mask == field.max:
        mask = None
    match field.name:
        case "in_port" if is_again(number):
            return (field.name, f"again:{number - FIRST_AGAIN}", None)
        case "in_port":
            return (field.name, port(number), None)
        case "vlan_vid" if mask is None:
            return (field.name, str(number & ~VLAN_PRESENT) if number & VLAN_PRESENT else "none", None)
        case "vlan_vid":
            return (field.name, f"{number:#06x}", f"{mask:#06x}")
        case "layers" if mask is not None:
            return (field.name, _layers(number, mask), None)
        case "ip_frag" if mask is None and number in list(Fragment):
            return (field.name, Fragment(number).name.lower(), None)
    if mask is None:
        return (field.name, value(field, number), None)
    return (field.name, value(field, number), _mask(field, mask))


def _mask(field: Field, mask: int) -> str:
    """A mask of leading ones in an IP address is a prefix's length."""
    if field.display in ("ipv4", "ipv6"):
        rest = ~mask & field.max
        if rest & (rest + 1) == 0:
            return str(field.bits - rest.bit_length())
    return value(field, mask) if field.display != "dec" else f"{mask:#x}"


def _layers(number: int, mask: int) -> str:
    """Headers that must (or, with ``!``, must not) be there."""
    return "|".join(
        ("" if number & layer else "!") + (layer.name or "").lower() for layer in Layer if mask & layer and _single(layer)
    )


def _single(layer: Layer) -> bool:
    return layer & (layer - 1) == 0


# ── matches ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def match_fields(match: Match) -> list[FieldText]:
    """In the order in which the controller gave them."""
    return [field_text(item.field, item.value, item.mask) for item in match.fields]


def key_fields(key: int, mask: int) -> list[FieldText]:
    """The fields of a megaflow. Of those that share bits, the one whose headers the packets have."""
    shown: list[FieldText] = []
    left = mask
    for field in _SHOWN:
        bits = field.get(left)
        if bits and _applies(field, key, mask):
            shown.append(field_text(field, field.get(key), bits))
            left &= ~(bits << field.shift)
    if left:
        shown.append(("other", f"{key & left:#x}", f"{left:#x}"))
    return shown


def _applies(field: Field, key: int, mask: int) -> bool:
    for needed in field.prerequisites:
        known = BY_NAME[needed.field]
        if known is VLAN_VID:
            continue  # without a tag vlan_pcp is 0, which may be what counts
        if not (needed.field == "in_port" or known.get(key) in needed.values):
            return False
        if known is ETH_TYPE and ETH_TYPE.get(mask) != ETH_TYPE.max:
            return False
        if not _applies(known, key, mask):
            return False
    return True


def one_line(fields: Iterable[FieldText]) -> str:
    """``in_port=1,ipv4_dst=10.0.0.0/8``; ``any`` for a match on everything."""
    return ",".join(f"{name}={value}" + ("" if mask is None else f"/{mask}") for name, value, mask in fields) or "any"


# ── what happens to a packet ───────────────────────────────────────────────────────────────────────────────────────────
def instructions(items: Iterable[Instruction]) -> str:
    """``apply_actions(output:2),goto_table:1``; ``drop`` where there are none."""
    return ",".join(_instruction(item) for item in items) or "drop"


def _instruction(item: Instruction) -> str:
    match item:
        case act.GotoTable(table_id=table_id):
            return f"goto_table:{table_id}"
        case act.WriteMetadata(metadata=metadata, metadata_mask=mask):
            return f"write_metadata:{metadata:#x}" + ("" if mask == BY_NAME["metadata"].max else f"/{mask:#x}")
        case act.WriteActions(actions=actions):
            return f"write_actions({_actions(actions)})"
        case act.ApplyActions(actions=actions):
            return f"apply_actions({_actions(actions)})"
        case act.ClearActions():
            return "clear_actions"
        case act.Meter(meter_id=meter_id):
            return f"meter:{meter_id}"
        case act.ExperimenterInstruction(experimenter=experimenter, data=data):
            return f"experimenter:{experimenter:#010x}:{data.hex()}"


def _actions(items: Iterable[Action]) -> str:
    return ",".join(_action(item) for item in items)


def _action(item: Action) -> str:
    match item:
        case act.Output(port=number, max_len=max_len):
            cut = number == PortNo.CONTROLLER and max_len != act.OFPCML_NO_BUFFER
            return f"output:{port(number)}" + (f":{max_len}" if cut else "")
        case act.Group(group_id=group_id):
            return f"group:{group_id}"
        case act.SetQueue(queue_id=queue_id):
            return f"set_queue:{queue_id}"
        case act.SetField():
            return _set_field(item)
        case act.PushVlan(ethertype=ethertype):
            return f"push_vlan:{ethertype:#06x}"
        case act.PopVlan():
            return "pop_vlan"
        case act.PushMpls(ethertype=ethertype):
            return f"push_mpls:{ethertype:#06x}"
        case act.PopMpls(ethertype=ethertype):
            return f"pop_mpls:{ethertype:#06x}"
        case act.PushPbb(ethertype=ethertype):
            return f"push_pbb:{ethertype:#06x}"
        case act.PopPbb():
            return "pop_pbb"
        case act.SetMplsTtl(ttl=ttl):
            return f"set_mpls_ttl:{ttl}"
        case act.DecMplsTtl():
            return "dec_mpls_ttl"
        case act.SetNwTtl(ttl=ttl):
            return f"set_nw_ttl:{ttl}"
        case act.DecNwTtl():
            return "dec_nw_ttl"
        case act.CopyTtlOut():
            return "copy_ttl_out"
        case act.CopyTtlIn():
            return "copy_ttl_in"
        case act.ExperimenterAction(experimenter=plugin.EXPERIMENTER_ID, data=data):
            return f"plugin:{plugin.plugin_of(data)}({data[4:].hex()})"
        case act.ExperimenterAction(experimenter=experimenter, data=data):
            return f"experimenter:{experimenter:#010x}:{data.hex()}"


def _set_field(item: act.SetField) -> str:
    _, text, _ = field_text(item.field, item.value)
    return f"set_field:{text}->{item.field.name}"


def datapath_actions(megaflow: Megaflow) -> str:
    """``push_tag:0x8100:100,output:2``; ``drop`` where there are none."""
    return ",".join(_datapath_action(item) for item in megaflow.actions) or "drop"


def _datapath_action(item: DatapathAction) -> str:
    match item:
        case Forward(port=number):
            return f"output:{port(number)}"
        case Flood():
            return "flood"
        case act.SetField():
            return _set_field(item)
        case PushTag(tpid=tpid, tci=tci):
            pcp = f",pcp={tci >> 13}" if tci >> 13 else ""
            return f"push_vlan:{tpid:#06x}(vid={tci & 0xFFF}{pcp})"
        case PopTag():
            return "pop_vlan"
        case DecTtl():
            return "dec_nw_ttl"
        case Controller(reason=reason, table_id=table_id):
            return f"controller({reason.name.lower()},table={table_id})"
        case act.Meter(meter_id=meter_id):
            return f"meter:{meter_id}"
        case CallPlugin(plugin_id=plugin_id, arguments=arguments):
            return f"plugin:{plugin_id}({arguments.hex()})"
        case Select(group_id=group_id, ways=ways) | Failover(group_id=group_id, ways=ways):
            kind = "select" if isinstance(item, Select) else "failover"
            buckets = ";".join(",".join(_datapath_action(each) for each in way.actions) or "drop" for way in ways)
            return f"{kind}:{group_id}({buckets})"
        case Again(place=place):
            return f"again:{place - FIRST_AGAIN}"
        case Clone(actions=copied):
            return f"clone({','.join(_datapath_action(each) for each in copied)})"
        case _:
            return _action(item)
