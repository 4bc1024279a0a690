"""Actions on the wire (specification 1.3.5, section 7.2.5).

Invariant: an action list that comes out of here has only actions of OpenFlow 1.3, each of the length that its type has. Whether the
switch has such a port, group or tag, and whether the action goes with the match, is the switch's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any

from appliance.model.actions import (
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
from appliance.model.fields import BY_OXM, VLAN_PRESENT, VLAN_VID
from appliance.model.plugin import EXPERIMENTER_ID
from appliance.openflow.constants import OXM_HEADER_BYTES, ActionType
from appliance.openflow.errors import BadAction, ErrorType, ProtocolError
from appliance.openflow.oxm import BY_HEADER, encode_oxm
from appliance.openflow.wire import TYPE_LENGTH, pad

ACTION_BYTES = 8
"""The shortest action; the length of every action is a multiple of it."""

_OUTPUT = Struct("!HHIH6x")
_WORD = Struct("!HHI")
_HALF = Struct("!HHH2x")
_BYTE = Struct("!HHB3x")
_BARE = Struct("!HH4x")

_OUTPUT_BODY = Struct("!IH")
_U32 = Struct("!I")
_U16 = Struct("!H")


def _bad_action(code: BadAction, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_ACTION, code, reason)


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _decode_output(data: bytes, position: int, _: int) -> Output:
    return Output(*_OUTPUT_BODY.unpack_from(data, position + 4))


def _word(action: Callable[[int], Action]) -> Callable[[bytes, int, int], Action]:
    return lambda data, position, _: action(_U32.unpack_from(data, position + 4)[0])


def _half(action: Callable[[int], Action]) -> Callable[[bytes, int, int], Action]:
    return lambda data, position, _: action(_U16.unpack_from(data, position + 4)[0])


def _byte(action: Callable[[int], Action]) -> Callable[[bytes, int, int], Action]:
    return lambda data, position, _: action(data[position + 4])


def _bare(action: Action) -> Callable[[bytes, int, int], Action]:
    return lambda _data, _position, _length: action


def _wrong_set_field(header: int) -> ProtocolError:
    """What is wrong with the OXM header of a set-field that is not in BY_HEADER."""
    field = BY_OXM.get((header >> 16, header >> 9 & 0x7F))
    if field is None:
        return _bad_action(BadAction.BAD_SET_TYPE, f"OXM {header:#010x} is not a field that can be set")
    if header >> 8 & 1:
        return _bad_action(BadAction.BAD_SET_TYPE, f"set {field.name} with a mask")
    return _bad_action(BadAction.BAD_SET_LEN, f"{field.name} of {header & 0xFF} bytes")


def _decode_set_field(data: bytes, position: int, length: int) -> SetField:
    start = position + 4
    header = int.from_bytes(data[start : start + OXM_HEADER_BYTES], "big")
    oxm = BY_HEADER.get(header)
    if oxm is None:
        raise _wrong_set_field(header)
    field = oxm.field
    if oxm.has_mask or not field.settable:
        raise _bad_action(BadAction.BAD_SET_TYPE, f"set {field.name}{' with a mask' if oxm.has_mask else ''}")
    used = 4 + OXM_HEADER_BYTES + oxm.length
    if length != used + pad(used):
        raise _bad_action(BadAction.BAD_SET_LEN, f"{field.name} in an action of {length} bytes")
    start += OXM_HEADER_BYTES
    value = int.from_bytes(data[start : start + oxm.length], "big")
    if value > oxm.max or (field is VLAN_VID and not value & VLAN_PRESENT):
        raise _bad_action(BadAction.BAD_SET_ARGUMENT, f"set {field.name} to {value:#x}")
    return SetField(field, value)


def _decode_experimenter(data: bytes, position: int, length: int) -> Action:
    (experimenter,) = _U32.unpack_from(data, position + 4)
    if experimenter != EXPERIMENTER_ID:
        raise _bad_action(BadAction.BAD_EXPERIMENTER, f"action of experimenter {experimenter:#010x}")
    return ExperimenterAction(experimenter, data[position + ACTION_BYTES : position + length])


_DECODERS: dict[int, tuple[int, Callable[[bytes, int, int], Action]]] = {
    # length in bytes (0: the decoder judges it), decoder
    ActionType.OUTPUT: (16, _decode_output),
    ActionType.COPY_TTL_OUT: (8, _bare(CopyTtlOut())),
    ActionType.COPY_TTL_IN: (8, _bare(CopyTtlIn())),
    ActionType.SET_MPLS_TTL: (8, _byte(SetMplsTtl)),
    ActionType.DEC_MPLS_TTL: (8, _bare(DecMplsTtl())),
    ActionType.PUSH_VLAN: (8, _half(PushVlan)),
    ActionType.POP_VLAN: (8, _bare(PopVlan())),
    ActionType.PUSH_MPLS: (8, _half(PushMpls)),
    ActionType.POP_MPLS: (8, _half(PopMpls)),
    ActionType.SET_QUEUE: (8, _word(SetQueue)),
    ActionType.GROUP: (8, _word(Group)),
    ActionType.SET_NW_TTL: (8, _byte(SetNwTtl)),
    ActionType.DEC_NW_TTL: (8, _bare(DecNwTtl())),
    ActionType.SET_FIELD: (0, _decode_set_field),
    ActionType.PUSH_PBB: (8, _half(PushPbb)),
    ActionType.POP_PBB: (8, _bare(PopPbb())),
    ActionType.EXPERIMENTER: (0, _decode_experimenter),
}


def decode_actions(data: bytes, position: int, end: int) -> tuple[Action, ...]:
    """The actions between two positions. Raises BAD_ACTION with the code that fits; of experimenters only plug-ins' is known."""
    actions: list[Action] = []
    while position < end:
        if position + ACTION_BYTES > end:
            raise _bad_action(BadAction.BAD_LEN, "the list ends inside an action")
        kind, length = TYPE_LENGTH.unpack_from(data, position)
        row = _DECODERS.get(kind)
        if row is None:
            raise _bad_action(BadAction.BAD_TYPE, f"action type {kind}")
        size, decode = row
        if length < ACTION_BYTES or length % 8 or position + length > end or (size and length != size):
            raise _bad_action(BadAction.BAD_LEN, f"{ActionType(kind).name} of {length} bytes")
        actions.append(decode(data, position, length))
        position += length
    return tuple(actions)


# ── writing ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _encode_set_field(action: SetField) -> bytes:
    oxm = encode_oxm(action.field, action.value)
    length = 4 + len(oxm)
    length += pad(length)
    return (TYPE_LENGTH.pack(ActionType.SET_FIELD, length) + oxm).ljust(length, b"\0")


def _encode_experimenter(action: ExperimenterAction) -> bytes:
    length = 8 + len(action.data)
    length += pad(length)
    return (_WORD.pack(ActionType.EXPERIMENTER, length, action.experimenter) + action.data).ljust(length, b"\0")


_ENCODERS: dict[type[Action], Callable[[Any], bytes]] = {
    Output: lambda a: _OUTPUT.pack(ActionType.OUTPUT, 16, a.port, a.max_len),
    CopyTtlOut: lambda _: _BARE.pack(ActionType.COPY_TTL_OUT, 8),
    CopyTtlIn: lambda _: _BARE.pack(ActionType.COPY_TTL_IN, 8),
    SetMplsTtl: lambda a: _BYTE.pack(ActionType.SET_MPLS_TTL, 8, a.ttl),
    DecMplsTtl: lambda _: _BARE.pack(ActionType.DEC_MPLS_TTL, 8),
    PushVlan: lambda a: _HALF.pack(ActionType.PUSH_VLAN, 8, a.ethertype),
    PopVlan: lambda _: _BARE.pack(ActionType.POP_VLAN, 8),
    PushMpls: lambda a: _HALF.pack(ActionType.PUSH_MPLS, 8, a.ethertype),
    PopMpls: lambda a: _HALF.pack(ActionType.POP_MPLS, 8, a.ethertype),
    SetQueue: lambda a: _WORD.pack(ActionType.SET_QUEUE, 8, a.queue_id),
    Group: lambda a: _WORD.pack(ActionType.GROUP, 8, a.group_id),
    SetNwTtl: lambda a: _BYTE.pack(ActionType.SET_NW_TTL, 8, a.ttl),
    DecNwTtl: lambda _: _BARE.pack(ActionType.DEC_NW_TTL, 8),
    SetField: _encode_set_field,
    PushPbb: lambda a: _HALF.pack(ActionType.PUSH_PBB, 8, a.ethertype),
    PopPbb: lambda _: _BARE.pack(ActionType.POP_PBB, 8),
    ExperimenterAction: _encode_experimenter,
}


def encode_actions(actions: Iterable[Action]) -> bytes:
    """The list as it stands in a message. ValueError for a field that OpenFlow 1.3 cannot set."""
    return b"".join([_ENCODERS[type(action)](action) for action in actions])
