"""What the decoder cannot judge: whether the switch has what actions and instructions ask for, and whether they go with the match.

Invariant: instructions that pass are all that the pipeline can run, and every set-field in them has its prerequisites.
Source: OpenFlow Switch Specification 1.3.5, sections 7.2.4, 7.2.5 and 7.4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from appliance.model.actions import (
    OFPCML_NO_BUFFER,
    Action,
    ApplyActions,
    ClearActions,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    DecNwTtl,
    ExperimenterAction,
    ExperimenterInstruction,
    GotoTable,
    Group,
    Instruction,
    Meter,
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
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import (
    BY_NAME,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    ETH_TYPE_MPLS,
    ETH_TYPE_MPLS_MULTICAST,
    ETH_TYPE_PBB,
    ETH_TYPE_QINQ,
    ETH_TYPE_VLAN,
    IP_PROTO,
    PLUGIN_BITS,
    VLAN_PRESENT,
    VLAN_TCI,
    VLAN_VID,
)
from appliance.model.match import Match
from appliance.model.plugin import EXPERIMENTER_ID, ArgumentError, Plugin, call_of, read_arguments
from appliance.model.ports import PortNo, is_port_number
from appliance.openflow.constants import OFPCML_MAX, OFPM_MAX, ActionType, InstructionType
from appliance.openflow.errors import BadAction, BadInstruction, BadMatch, ErrorType, MeterModFailed, ProtocolError
from appliance.pipeline.flow_table import N_TABLES

SUPPORTED_ACTIONS: dict[type[Action], ActionType] = {
    Output: ActionType.OUTPUT,
    CopyTtlOut: ActionType.COPY_TTL_OUT,
    CopyTtlIn: ActionType.COPY_TTL_IN,
    SetMplsTtl: ActionType.SET_MPLS_TTL,
    DecMplsTtl: ActionType.DEC_MPLS_TTL,
    PushVlan: ActionType.PUSH_VLAN,
    PopVlan: ActionType.POP_VLAN,
    PushMpls: ActionType.PUSH_MPLS,
    PopMpls: ActionType.POP_MPLS,
    SetQueue: ActionType.SET_QUEUE,
    Group: ActionType.GROUP,
    SetNwTtl: ActionType.SET_NW_TTL,
    DecNwTtl: ActionType.DEC_NW_TTL,
    SetField: ActionType.SET_FIELD,
    PushPbb: ActionType.PUSH_PBB,
    PopPbb: ActionType.POP_PBB,
}
SUPPORTED_INSTRUCTIONS: dict[type[Instruction], InstructionType] = {
    GotoTable: InstructionType.GOTO_TABLE,
    WriteMetadata: InstructionType.WRITE_METADATA,
    WriteActions: InstructionType.WRITE_ACTIONS,
    ApplyActions: InstructionType.APPLY_ACTIONS,
    ClearActions: InstructionType.CLEAR_ACTIONS,
    Meter: InstructionType.METER,
}

_OUTPUT_PORTS = frozenset({PortNo.IN_PORT, PortNo.NORMAL, PortNo.FLOOD, PortNo.ALL, PortNo.CONTROLLER})
_PACKET_OUT_PORTS = _OUTPUT_PORTS | {PortNo.TABLE}
_TAG_TYPES = (ETH_TYPE_VLAN, ETH_TYPE_QINQ)
_MPLS_TYPES = (ETH_TYPE_MPLS, ETH_TYPE_MPLS_MULTICAST)
_IP_TYPES = (ETH_TYPE_IPV4, ETH_TYPE_IPV6)
_VLAN_PRESENT_BIT = VLAN_PRESENT << VLAN_VID.shift
_SET_ORDER: dict[type[Action], int] = {
    kind: place
    for place, kind in enumerate(
        (CopyTtlIn, PopPbb, PopVlan, PopMpls, PushMpls, PushPbb, PushVlan, CopyTtlOut, DecMplsTtl, DecNwTtl)
    )
}
"""The order in which an action set runs, as far as an action's prerequisites depend on it (section 5.10)."""


_MAX_REMEMBERED = 1024


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

    def push_mpls(self, ethertype: int) -> None:
        self.value = ETH_TYPE.put(self.value, ethertype)
        self.mask = self.mask & ~IP_PROTO.mask | ETH_TYPE.mask

    def push_pbb(self, ethertype: int) -> None:
        """The frame inside keeps its tags; the backbone has none yet."""
        self.push_mpls(ethertype)
        self.pop_vlan()
        self.mask |= _VLAN_PRESENT_BIT

    def pop_pbb(self) -> None:
        """Nothing is known of the frame that comes to light."""
        self.pop_vlan()
        self.mask &= ~(ETH_TYPE.mask | IP_PROTO.mask)

    def set(self, action: SetField) -> None:
        self.value = action.field.put(self.value, action.value)
        self.mask |= action.field.mask


def _bad_action(code: BadAction, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_ACTION, code, reason)


def _bad_instruction(code: BadInstruction, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_INSTRUCTION, code, reason)


class Ids(Protocol):
    """What there is at the time of each check."""

    def __contains__(self, number: int, /) -> bool: ...


class Validator:
    """Checks for one switch."""

    def __init__(self, groups: Ids, meters: Ids, queues: Ids, plugins: Mapping[int, Plugin] | None = None) -> None:
        self._plugins = plugins or {}
        matched = sum(plugin.match.mask for plugin in self._plugins.values() if plugin.match is not None)
        self._untold = (PLUGIN_BITS.max & ~matched) << PLUGIN_BITS.shift
        """Bits of the flow key that no plug-in tells."""
        self._groups = groups
        self._meters = meters
        self._queues = queues
        self._right_anywhere: dict[int, tuple[Instruction, ...]] = {}
        """Lists that only output, by identity: flow entries by the thousand share them, and they go with every match."""

    def check_instructions(self, instructions: tuple[Instruction, ...], match: Match, table_id: int) -> None:
        """Raises ProtocolError unless an entry of table ``table_id`` can have this match, and these instructions with it."""
        untold = match.mask & self._untold
        if untold:
            text = f"no plug-in tells bits {PLUGIN_BITS.get(untold):#x} of plugin_bits"
            raise ProtocolError(ErrorType.BAD_MATCH, BadMatch.BAD_FIELD, text)
        if self._right_anywhere.get(id(instructions)) is instructions:
            return
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
                case Meter(meter_id=meter_id):
                    self._check_meter(meter_id)
                case ExperimenterInstruction():
                    raise _bad_instruction(BadInstruction.BAD_EXPERIMENTER, "no experimenter's instruction is known")
        known = _Known(match.value, match.mask)
        self._check_list(apply, known, _OUTPUT_PORTS)
        self._check_list(sorted(write, key=lambda action: _SET_ORDER.get(type(action), len(_SET_ORDER))), known, _OUTPUT_PORTS)
        if len(instructions) == 1 and apply and all(isinstance(action, Output) for action in apply):
            if len(self._right_anywhere) >= _MAX_REMEMBERED:
                self._right_anywhere.clear()
            self._right_anywhere[id(instructions)] = instructions

    def check_packet_out(self, actions: Iterable[Action], key: int) -> None:
        """Raises ProtocolError unless a packet-out of a packet with this flow key can have these actions."""
        self._check_list(actions, _Known(key, ~0), _PACKET_OUT_PORTS)

    def check_bucket(self, actions: Iterable[Action]) -> None:
        """Raises ProtocolError unless a bucket, an action set, can have these actions. Of its packets nothing is known: what goes
        with a packet is decided when it comes."""
        self._check_list(actions, None, _OUTPUT_PORTS)

    def _check_meter(self, meter_id: int) -> None:
        if not 1 <= meter_id <= OFPM_MAX:
            raise ProtocolError(ErrorType.METER_MOD_FAILED, MeterModFailed.INVALID_METER, f"meter {meter_id:#x} in a flow entry")
        if meter_id not in self._meters:
            raise ProtocolError(ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER, f"there is no meter {meter_id}")

    def _check_plugin(self, data: bytes) -> None:
        try:
            plugin_id, arguments = call_of(data)
            plugin = self._plugins.get(plugin_id)
            if plugin is None or plugin.action is None:
                raise _bad_action(BadAction.BAD_EXP_TYPE, f"there is no plug-in {plugin_id} with an action")
            read_arguments(plugin.action, arguments)
        except ArgumentError as error:
            raise _bad_action(BadAction.BAD_ARGUMENT, str(error)) from error

    def _check_list(self, actions: Iterable[Action], known: _Known | None, ports: frozenset[PortNo]) -> None:
        """``known`` is that before the list; it comes out as that behind it. None asks for no prerequisites."""
        for action in actions:
            match action:
                case Output(port=port, max_len=max_len):
                    _check_output(port, max_len, ports)
                case SetField():
                    _check_set_field(action)
                case PushVlan(ethertype=ethertype):
                    _check_ethertype(ethertype, _TAG_TYPES)
                case PushMpls(ethertype=ethertype):
                    _check_ethertype(ethertype, _MPLS_TYPES)
                case PushPbb(ethertype=ethertype):
                    _check_ethertype(ethertype, (ETH_TYPE_PBB,))
                case Group(group_id=group_id):
                    if group_id not in self._groups:
                        raise _bad_action(BadAction.BAD_OUT_GROUP, f"there is no group {group_id:#x}")
                case SetQueue(queue_id=queue_id):
                    if queue_id not in self._queues:
                        raise _bad_action(BadAction.BAD_QUEUE, f"there is no queue {queue_id:#x}")
                case ExperimenterAction(experimenter=experimenter, data=data):
                    if experimenter != EXPERIMENTER_ID:
                        raise _bad_action(BadAction.BAD_EXPERIMENTER, f"action of experimenter {experimenter:#010x}")
                    self._check_plugin(data)
                case _:
                    pass
            if known is not None:
                _check_prerequisites(action, known)


def _check_output(port: int, max_len: int, ports: frozenset[PortNo]) -> None:
    if not is_port_number(port) and port not in ports:
        raise _bad_action(BadAction.BAD_OUT_PORT, f"output to port {port:#x}")
    if port == PortNo.CONTROLLER and OFPCML_MAX < max_len != OFPCML_NO_BUFFER:
        raise _bad_action(BadAction.BAD_ARGUMENT, f"max_len {max_len:#x}")


def _check_ethertype(ethertype: int, types: tuple[int, ...]) -> None:
    if ethertype not in types:
        raise _bad_action(BadAction.BAD_ARGUMENT, f"push a tag of type {ethertype:#06x}")


def _check_set_field(action: SetField) -> None:
    field = action.field
    if not field.settable or field.oxm < 0:
        raise _bad_action(BadAction.BAD_SET_TYPE, f"set {field.name}")
    if action.value > field.max or (field is VLAN_VID and not action.value & VLAN_PRESENT):
        raise _bad_action(BadAction.BAD_SET_ARGUMENT, f"set {field.name} to {action.value:#x}")


def _check_prerequisites(action: Action, known: _Known) -> None:
    """Raises MATCH_INCONSISTENT if packets may not have what the action is for; tells ``known`` what it does."""
    match action:
        case SetField(field=field):
            for need in field.prerequisites:
                if not known.is_one_of(need.field, need.values):
                    raise _inconsistent(f"set {field.name} of packets that may have no such field")
            if field is VLAN_VID and known.untagged:
                raise _inconsistent("set vlan_vid of packets that have no tag")
            known.set(action)
        case PushVlan():
            known.push_vlan()
        case PopVlan():
            if known.untagged:
                raise _inconsistent("pop a VLAN tag of packets that have none")
            known.pop_vlan()
        case PushMpls(ethertype=ethertype):
            known.push_mpls(ethertype)
        case PopMpls(ethertype=ethertype):
            _need_type(known, _MPLS_TYPES, "pop MPLS")
            known.push_mpls(ethertype)
        case PushPbb(ethertype=ethertype):
            known.push_pbb(ethertype)
        case PopPbb():
            _need_type(known, (ETH_TYPE_PBB,), "pop PBB")
            known.pop_pbb()
        case SetNwTtl() | DecNwTtl():
            _need_type(known, _IP_TYPES, "change the TTL of IP")
        case SetMplsTtl() | DecMplsTtl():
            _need_type(known, _MPLS_TYPES, "change the TTL of MPLS")
        case CopyTtlOut() | CopyTtlIn():
            _need_type(known, (*_MPLS_TYPES, *_IP_TYPES), "copy the TTL")
        case _:
            pass


def _need_type(known: _Known, types: tuple[int, ...], what: str) -> None:
    if not known.is_one_of(ETH_TYPE.name, types):
        raise _inconsistent(f"{what}: packets may be of another ethertype")


def _inconsistent(reason: str) -> ProtocolError:
    return _bad_action(BadAction.MATCH_INCONSISTENT, reason)
