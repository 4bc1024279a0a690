"""What each action does to a packet on its way: to its tracked key, and to the list of datapath actions.

Invariant: each step depends only on bits of the packet that are in the key's mask.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.model.actions import (
    OFPCML_NO_BUFFER,
    Action,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    DecNwTtl,
    ExperimenterAction,
    Group,
    Output,
    PopMpls,
    PopPbb,
    PopVlan,
    PushMpls,
    PushPbb,
    PushVlan,
    SetField,
    SetMplsTtl,
    SetNwTtl,
    SetQueue,
)
from appliance.model.fields import (
    IN_PORT,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_TTL,
    MATCH_FIELDS,
    METADATA,
    MPLS_TTL,
    VLAN_PRESENT,
    VLAN_VID,
    Field,
    Layer,
    Prerequisite,
)
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PacketInReason, PopTag, PushTag
from appliance.model.ports import PortNo, is_port_number
from appliance.pipeline.action_list import VLAN_FIELDS, set_in_push
from appliance.pipeline.copies import Step
from appliance.pipeline.tracked_key import HAS_TAG, IP_TTL_BITS, MPLS_TTL_BITS, ParseAgainError, TrackedKey, layer_bits
from appliance.pipeline.translation import Origin, Translation

Normal = Callable[[int], Translation]
"""What OFPP_NORMAL does with a flow key: ``mac_table.normal`` with its table and time filled in."""

SUPPORTED_ACTIONS: frozenset[type[Action]] = frozenset(
    {
        Output,
        Group,
        SetQueue,
        SetField,
        PushVlan,
        PopVlan,
        PushMpls,
        PopMpls,
        PushPbb,
        PopPbb,
        SetMplsTtl,
        DecMplsTtl,
        SetNwTtl,
        DecNwTtl,
        CopyTtlOut,
        CopyTtlIn,
    }
)
"""Actions that the pipeline can do, besides those of plug-ins. Flow-mods and packet-outs with another one are refused before."""

_IP_LAYERS = layer_bits(Layer.IP)
_MPLS_LAYER = layer_bits(Layer.MPLS)


def _headers(field: Field) -> tuple[int, ...]:
    """Groups of bits in ``layers``; a packet that has the field has one bit of each."""
    groups = [layer_bits(field.layer)] if field.layer else []
    if Prerequisite(IP_PROTO.name, (IP_PROTO_ICMP,)) in field.prerequisites:
        groups.append(layer_bits(Layer.IPV4))
    if Prerequisite(IP_PROTO.name, (IP_PROTO_ICMPV6,)) in field.prerequisites:
        groups.append(layer_bits(Layer.IPV6))
    return tuple(groups)


_HEADERS = {field.name: (HAS_TAG,) if field.name in VLAN_FIELDS else _headers(field) for field in (*MATCH_FIELDS, IP_TTL, MPLS_TTL)}


class StopError(Exception):
    """The packet goes no further: its TTL is used up."""


class ActionWalk:
    """A packet to which actions are done, one by one. Groups are for those who know them."""

    __slots__ = (
        "_in_port",
        "_key",
        "_new_protocol",
        "_normal",
        "_normal_keys",
        "_one_packet",
        "_origin",
        "_out",
        "_queue_id",
        "_ttl_changed",
    )

    def __init__(self, key: int, normal: Normal | None, origin: Origin) -> None:
        self._normal = normal
        self._key = TrackedKey(key)
        self._in_port = IN_PORT.get(key)
        self._origin = origin
        self._out: list[Step] = []
        self._normal_keys: list[int] = []
        self._new_protocol = False
        self._ttl_changed = False
        """A TTL has been set, copied or hidden: the fast path does not know what a header has now."""
        self._queue_id: int | None = None
        self._one_packet = False
        """It is for this packet only: what depends on its own headers may be decided here."""

    def _do(self, action: Action) -> None:
        """Raises ValueError for an action that is not in SUPPORTED_ACTIONS."""
        key = self._key
        match action:
            case Output():
                self._output(action)
            case SetField(field, value):
                self._set_field(field, value)
            case PushVlan(ethertype):
                self._out.append(PushTag(ethertype, key.push_tag()))
            case PopVlan():
                if key.pop_tag():
                    self._out.append(PopTag())
            case Group(group_id):
                self._group(group_id)
            case SetNwTtl(ttl):
                self._set_field(IP_TTL, ttl)
            case DecNwTtl():
                self._dec_ttl(IP_TTL, IP_TTL_BITS, _IP_LAYERS, DecTtl())
            case SetMplsTtl(ttl):
                self._set_field(MPLS_TTL, ttl)
            case DecMplsTtl():
                self._dec_ttl(MPLS_TTL, MPLS_TTL_BITS, _MPLS_LAYER, action)
            case PushMpls(ethertype):
                # A tag that was pushed may hide the TTL that the entry takes over.
                self._ttl_changed |= any(isinstance(done, PushTag) for done in self._out)
                self._encapsulated(action)
                key.push_mpls(ethertype)
            case PushPbb():
                self._encapsulated(action)
                key.push_pbb()
            case PopMpls(ethertype):
                if key.pop_mpls(ethertype):
                    self._out.append(action)
            case PopPbb():
                if key.pop_pbb():
                    self._out.append(action)
            case CopyTtlOut():
                self._out.append(action)
                key.changed(IP_TTL_BITS | MPLS_TTL_BITS)
                self._ttl_changed = True
            case CopyTtlIn():
                # Into a header that the key does not show.
                self._out.append(action)
            case SetQueue(queue_id):
                self._out.append(action)
                self._queue_id = queue_id
            case ExperimenterAction():
                self._call_plugin(action)
            case _:
                raise ValueError(f"the pipeline has no action {action}")

    def _group(self, group_id: int) -> None:
        raise NotImplementedError

    def _call_plugin(self, action: ExperimenterAction) -> None:
        raise NotImplementedError

    def _output(self, action: Output) -> None:
        port = action.port
        in_port = self._in_port
        if is_port_number(port):
            if port != in_port:
                self._out.append(Forward(port))
        elif port == PortNo.CONTROLLER:
            self._to_controller(self._origin.reason, action.max_len)
        elif port in (PortNo.FLOOD, PortNo.ALL):
            self._out.append(Flood())
        elif port == PortNo.IN_PORT:
            if is_port_number(in_port):
                self._out.append(Forward(in_port))
        elif port == PortNo.NORMAL and self._normal is not None:
            key = self._key.key
            decision = self._normal(key)
            self._key.need(decision.mask)
            self._normal_keys.append(key)
            self._out.extend(decision.actions)

    def _to_controller(self, reason: PacketInReason, max_len: int) -> None:
        origin = self._origin
        self._out.append(Controller(reason, origin.table_id, origin.cookie, max_len, METADATA.get(self._key.key)))

    def _set_field(self, field: Field, value: int) -> None:
        if self._new_protocol and field.layer:
            # It may count in the checksum of the new protocol, of which nothing is known yet.
            raise ParseAgainError
        for group in _HEADERS[field.name]:
            if not self._key.has(group):
                return
        if field is VLAN_VID:
            value |= VLAN_PRESENT
        if not self._key.write(field, value):
            return
        if field is IP_PROTO:
            self._new_protocol = True
        elif field in (IP_TTL, MPLS_TTL):
            self._ttl_changed = True
        if field.name in VLAN_FIELDS and set_in_push(self._out, self._key.outer_tci):
            return
        self._out.append(SetField(field, value))

    def _dec_ttl(self, field: Field, bits: int, layers: int, action: DatapathAction) -> None:
        if not self._key.has(layers):
            return
        if self._one_packet:
            self._key.need(bits)
        elif not self._key.was_written(bits):
            if self._ttl_changed:
                raise ParseAgainError
            # Each packet's own TTL is looked at when the action is done: it need not be the same for all packets of the megaflow.
            self._out.append(action)
            self._key.changed(bits)
            return
        ttl = field.get(self._key.key)
        if ttl <= 1:
            self._to_controller(PacketInReason.INVALID_TTL, OFPCML_NO_BUFFER)
            raise StopError
        self._set_field(field, ttl - 1)

    def _encapsulated(self, action: PushMpls | PushPbb) -> None:
        self._out.append(action)
        self._new_protocol = False
