"""What the decoder cannot judge: whether the switch has what actions and instructions ask for, and whether they go with the match.

Invariant: instructions that pass are all that the pipeline can run, and every set-field in them has its prerequisites.
Source: OpenFlow Switch Specification 1.3.5, sections 7.2.4, 7.2.5 and 7.4.4.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    DecNwTtl,
    ExperimenterAction,
    ExperimenterInstruction,
    GotoTable,
    Group,
    Instruction,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    SetNwTtl,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import (
    BY_NAME,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    ETH_TYPE_QINQ,
    ETH_TYPE_VLAN,
    VLAN_PRESENT,
    VLAN_TCI,
    VLAN_VID,
)
from appliance.model.match import Match
from appliance.model.ports import MAX_PORT_NUMBER, PortNo
from appliance.openflow.constants import ActionType, InstructionType
from appliance.openflow.errors import BadAction, BadInstruction, ErrorType, ProtocolError
from appliance.pipeline.flow_table import N_TABLES

SUPPORTED_ACTIONS: dict[type[Action], ActionType] = {
    Output: ActionType.OUTPUT,
    PushVlan: ActionType.PUSH_VLAN,
    PopVlan: ActionType.POP_VLAN,
    SetNwTtl: ActionType.SET_NW_TTL,
    DecNwTtl: ActionType.DEC_NW_TTL,
    SetField: ActionType.SET_FIELD,
}
SUPPORTED_INSTRUCTIONS: dict[type[Instruction], InstructionType] = {
    GotoTable: InstructionType.GOTO_TABLE,
    WriteMetadata: InstructionType.WRITE_METADATA,
    WriteActions: InstructionType.WRITE_ACTIONS,
    ApplyActions: InstructionType.APPLY_ACTIONS,
    ClearActions: InstructionType.CLEAR_ACTIONS,
}

_OUTPUT_PORTS = frozenset({PortNo.IN_PORT, PortNo.NORMAL, PortNo.FLOOD, PortNo.ALL, PortNo.CONTROLLER})
_PACKET_OUT_PORTS = _OUTPUT_PORTS | {PortNo.TABLE}
_TAG_TYPES = (ETH_TYPE_VLAN, ETH_TYPE_QINQ)
_IP_TYPES = (ETH_TYPE_IPV4, ETH_TYPE_IPV6)
_VLAN_PRESENT_BIT = VLAN_PRESENT << VLAN_VID.shift
_SET_ORDER: dict[type[Action], int] = {PopVlan: 0, PushVlan: 1}
"""The order in which an action set runs, as far as an action's prerequisites depend on it (section 5.10)."""


class _Known:
    """What is known of the headers of every packet that reaches an action: bits ``value`` under ``mask`` of its flow key."""

    __slots__ = ("mask", "value")

    def __init__(self, value: int, mask: int) -> None:
        self.value = value
        self.mask = mask

    def copy(self) -> _Known:
        return _Known(self.value, self.mask)

    def is_one_of(self, name: str, values: tuple[int, ...]) -> bool:
        field = BY_NAME[name]
        if not values:
            if field is VLAN_VID:
                return self.value & self.mask & _VLAN_PRESENT_BIT != 0
            return self.mask & field.mask == field.mask
        return self.mask & field.mask == field.mask and field.get(self.value) in values

    @property
    def untagged(self) -> bool:
        """Whether the packets certainly have no tag."""
        return self.mask & _VLAN_PRESENT_BIT != 0 and not self.value & _VLAN_PRESENT_BIT

    def push_vlan(self) -> None:
        self.mask |= _VLAN_PRESENT_BIT
        self.value |= _VLAN_PRESENT_BIT

    def pop_vlan(self) -> None:
        """The tag below is not known of."""
        self.mask &= ~VLAN_TCI.mask
        self.value &= ~VLAN_TCI.mask

    def set(self, action: SetField) -> None:
        self.value = action.field.put(self.value, action.value)
        self.mask |= action.field.mask


def _bad_action(code: BadAction, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_ACTION, code, reason)


def _bad_instruction(code: BadInstruction, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_INSTRUCTION, code, reason)


def check_instructions(instructions: Iterable[Instruction], match: Match, table_id: int) -> None:
    """Raises ProtocolError unless an entry of table ``table_id`` with this match can have these instructions."""
    apply: tuple[Action, ...] = ()
    write: tuple[Action, ...] = ()
    for instruction in instructions:
        match instruction:
            case ApplyActions(actions=apply):
                pass
            case WriteActions(actions=write):
                pass
            case GotoTable(table_id=target):
                if not table_id < target < N_TABLES:
                    raise _bad_instruction(BadInstruction.BAD_TABLE_ID, f"table {table_id} goes to table {target}")
            case ClearActions() | WriteMetadata():
                pass
            case ExperimenterInstruction():
                raise _bad_instruction(BadInstruction.BAD_EXPERIMENTER, "no experimenter's instruction is known")
            case _:
                # A meter: this switch has none, and says so (OFPMP_METER_FEATURES, OFPMP_TABLE_FEATURES).
                raise _bad_instruction(BadInstruction.UNSUP_INST, f"{type(instruction).__name__} is not supported")
    known = _Known(match.value, match.mask)
    _check_list(apply, known, _OUTPUT_PORTS)
    _check_list(sorted(write, key=lambda action: _SET_ORDER.get(type(action), 2)), known, _OUTPUT_PORTS)


def check_packet_out(actions: Iterable[Action], key: int) -> None:
    """Raises ProtocolError unless a packet-out of a packet with this flow key can have these actions."""
    _check_list(actions, _Known(key, ~0), _PACKET_OUT_PORTS)


def _check_list(actions: Iterable[Action], known: _Known, ports: frozenset[PortNo]) -> None:
    """``known`` is that before the list; it comes out as that behind it."""
    for action in actions:
        match action:
            case Output(port=port):
                if not 1 <= port <= MAX_PORT_NUMBER and port not in ports:
                    raise _bad_action(BadAction.BAD_OUT_PORT, f"output to port {port:#x}")
            case SetField():
                _check_set_field(action, known)
                known.set(action)
            case PushVlan(ethertype=ethertype):
                if ethertype not in _TAG_TYPES:
                    raise _bad_action(BadAction.BAD_ARGUMENT, f"push a VLAN tag of type {ethertype:#06x}")
                known.push_vlan()
            case PopVlan():
                if known.untagged:
                    raise _bad_action(BadAction.MATCH_INCONSISTENT, "pop a VLAN tag of packets that have none")
                known.pop_vlan()
            case SetNwTtl() | DecNwTtl():
                if not known.is_one_of(ETH_TYPE.name, _IP_TYPES):
                    raise _bad_action(BadAction.MATCH_INCONSISTENT, "change the TTL of packets that may not be IP")
            case Group(group_id=group_id):
                raise _bad_action(BadAction.BAD_OUT_GROUP, f"there is no group {group_id:#x}")
            case ExperimenterAction(experimenter=experimenter):
                raise _bad_action(BadAction.BAD_EXPERIMENTER, f"action of experimenter {experimenter:#010x}")
            case _:
                raise _bad_action(BadAction.BAD_TYPE, f"{type(action).__name__} is not supported")


def _check_set_field(action: SetField, known: _Known) -> None:
    field = action.field
    if not field.settable or field.oxm < 0:
        raise _bad_action(BadAction.BAD_SET_TYPE, f"set {field.name}")
    if action.value > field.max or (field is VLAN_VID and not action.value & VLAN_PRESENT):
        raise _bad_action(BadAction.BAD_SET_ARGUMENT, f"set {field.name} to {action.value:#x}")
    for need in field.prerequisites:
        if not known.is_one_of(need.field, need.values):
            raise _bad_action(BadAction.MATCH_INCONSISTENT, f"set {field.name} of packets that may have no such field")
    if field is VLAN_VID and known.untagged:
        raise _bad_action(BadAction.MATCH_INCONSISTENT, "set vlan_vid of packets that have no tag")
