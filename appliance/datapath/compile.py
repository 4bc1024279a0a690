"""Datapath actions → the ops that eBPF executes. What eBPF cannot do is marked as punted: slower, never wrong.

Invariant: the ops do what ``packet.execute`` does with the same actions, for every packet, or the megaflow is punted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile
from typing import Final

from appliance.datapath.edit import Edit, edit
from appliance.datapath.layout import (
    EDIT_OPS,
    MAX_OPS,
    MAX_TAGS_OF_COPY,
    NO_SLOT,
    RUN_OPS,
    ChoiceKind,
    MegaflowFlag,
    OpCode,
    port_place,
)
from appliance.datapath.setters import SETTERS, UnsupportedError, make_op, wire_op
from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, Meter, PopMpls, PopPbb, PushMpls, PushPbb, SetField, SetQueue
from appliance.model.fields import ETH_TYPE_QINQ, ETH_TYPE_VLAN, MAX_VLAN_TAGS
from appliance.model.megaflow import (
    MAX_LEADING_METERS,
    Again,
    CallPlugin,
    Clone,
    Controller,
    DatapathAction,
    DecTtl,
    Failover,
    Flood,
    Forward,
    PopTag,
    PushTag,
    Select,
    Way,
)
from appliance.model.queues import queue_class
from appliance.packet.select import thresholds

_NATIVE: Final = sys.byteorder


@dataclass(frozen=True, slots=True)
class CompiledWay:
    """One way of a choice: ``value`` as in struct way, and its own ops."""

    value: int
    ops: bytes


@dataclass(frozen=True, slots=True)
class CompiledChoice:
    kind: ChoiceKind
    ways: tuple[CompiledWay, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What goes in a slot of the megaflow table (struct megaflow): ``ops``, of 8 bytes each, ended by OP_END. What is more than
    MAX_OPS of them goes in further slots (``in_slots``).

    With a ``choice``, the last op before OP_END is OP_CHOOSE, whose argument is still to be filled in (``linked``), as are those
    of the ops at ``stops``: where a meter or a plug-in may drop the packet.
    """

    ops: bytes
    flags: MegaflowFlag
    xdp_port: int = 0
    ttl_needed: int = 0
    growth: int = 0
    choice: CompiledChoice | None = None
    stops: tuple[int, ...] = ()
    edit: Edit | None = None
    """What may be done to common packets in the place of ``ops``."""
    reason: str = field(default="", compare=False)
    """Why it is not done at XDP, or not in the fast path at all, in words for people."""

    def linked(self, choice: int | None, drop_slots: Sequence[int]) -> bytes:
        """The ops, with the index of the choice, and for each stop the slot that counts what is dropped there."""
        ops = self.ops
        for at, slot in zip(self.stops, drop_slots, strict=True):
            end = (at + 1) * _OP_BYTES
            ops = ops[: end - 4] + slot.to_bytes(4, _NATIVE) + ops[end:]
        if choice is not None:
            ops = ops[: -2 * _OP_BYTES] + make_op(OpCode.CHOOSE, arg32=choice) + make_op(OpCode.END)
        return ops

    @property
    def takes_one_slot(self) -> bool:
        """Whether its own is all it takes, and ``ops`` is what goes in there."""
        return self.choice is None and not self.stops and len(self.ops) <= MAX_OPS * _OP_BYTES

    @property
    def further_slots(self) -> int:
        """How many it takes besides its own."""
        return max(0, len(self.ops) // _OP_BYTES - 2) // (MAX_OPS - 1)


_OP_BYTES: Final = 8
VLAN_TAG_BYTES: Final = 4
MPLS_BYTES: Final = 4
MAX_SLOTS: Final = 4
"""That the ops of one megaflow may take."""
MAX_PROGRAMS: Final = 24
"""The kernel lets 34 call each other; some come before a megaflow's ops."""
MAX_PROGRAMS_BEFORE: Final = 6
MAX_PROGRAMS_BEHIND: Final = 9
"""Where its packets are parsed again behind it, at most twice, and where they have been."""
_IN_OTHER_PROGRAMS: Final = (OpCode.FLOOD, OpCode.CONTROLLER, OpCode.PLUGIN)
PUNTED: Final = Compiled(b"", MegaflowFlag.PUNT)


_MOST_OPS: Final = MAX_SLOTS * (MAX_OPS - 1) + 1
_MOST_DECREMENTS: Final = 31
_TOO_LONG: Final = f"more than {_MOST_OPS - 1} ops"
_BROUGHT_TO_LIGHT: Final = "it needs headers that an action has brought to light"
_PBB: Final = "PBB"


_RETYPES: Final = {"eth_type", "ip_proto"}
"""After these, other headers are in the packet than the key says: eBPF does not parse it again."""

_RETYPES_ICMP: Final = {"icmpv6_type", "icmpv6_code"}
"""After these, a neighbour discovery message may be another one, or one no more."""

_VLAN_FIELDS: Final = {"vlan_vid", "vlan_pcp"}
_TPIDS: Final = (ETH_TYPE_VLAN, ETH_TYPE_QINQ)

_TTLS: Final = {"ip_ttl", "mpls_ttl"}

_ND_FIELDS: Final = {"ipv6_nd_target", "ipv6_nd_sll", "ipv6_nd_tll"}


def compile_actions(
    actions: Sequence[DatapathAction], meters: Mapping[int, int] | None = None, *, parsed_again: bool = False
) -> Compiled:
    """The ops for a megaflow's actions. If the fast path cannot do them all, MegaflowFlag.PUNT, and only the meters are left.

    ``meters`` are the indices of the meters that the fast path has, by id. ``parsed_again``: its packets have met others before.
    """
    if not actions or not isinstance(actions[0], Meter):
        return _compile_unmetered(tuple(actions), parsed_again)
    leading = list(takewhile(lambda action: isinstance(action, Meter), actions))
    metered = [meters[action.meter_id] for action in leading if isinstance(action, Meter) and meters and action.meter_id in meters]
    if len(metered) != len(leading):
        return replace(PUNTED, reason="a meter that is not in the fast path")
    if len(metered) > MAX_LEADING_METERS:
        return replace(PUNTED, reason=f"more than {MAX_LEADING_METERS} meters")
    meter_ops = [make_op(OpCode.METER, arg16=index) for index in metered]
    try:
        rest = _compile(actions[len(leading) :], meter_ops, parsed_again=parsed_again)
    except UnsupportedError as why:
        ops = b"".join([*meter_ops, make_op(OpCode.END)])
        return Compiled(ops, MegaflowFlag.PUNT | MegaflowFlag.METERED, stops=tuple(range(len(metered))), reason=str(why))
    # Their packets take the way of the meters.
    flags = rest.flags & ~(MegaflowFlag.DIRECT | MegaflowFlag.XDP) | MegaflowFlag.METERED
    return replace(rest, flags=flags, edit=None, reason="a meter")


@lru_cache(maxsize=1024)
def _compile_unmetered(actions: tuple[DatapathAction, ...], parsed_again: bool) -> Compiled:
    """Many megaflows have the same few lists of actions."""
    try:
        return _compile(actions, parsed_again=parsed_again)
    except UnsupportedError as why:
        return replace(PUNTED, reason=str(why))


def _compile(actions: Sequence[DatapathAction], meter_ops: Sequence[bytes] = (), *, parsed_again: bool) -> Compiled:
    """Raises UnsupportedError."""
    if not any(isinstance(action, _TO_PORTS) for action in actions) and any(isinstance(action, Controller) for action in actions):
        raise UnsupportedError("it goes to the controllers alone")  # nothing is left to do when the slow path has it
    body = _Compilation(after_meters=bool(meter_ops))
    body.run(actions)
    ops = [*meter_ops, *body.ops]
    stops = (*range(len(meter_ops)), *(len(meter_ops) + at for at in body.stops))
    ways = body.choice.ways if body.choice else ()
    if len(ops) > _MOST_OPS:
        raise UnsupportedError(_TOO_LONG)
    goes_on = bool(actions) and isinstance(actions[-1], Again)
    most = MAX_PROGRAMS_BEFORE if goes_on else MAX_PROGRAMS_BEHIND if parsed_again else MAX_PROGRAMS
    if _programs(b"".join(ops)) + max((_programs(way.ops) for way in ways), default=0) > most:
        raise UnsupportedError("too many ops, floods, copies for the controllers, and plug-ins to call each other")
    ip, mpls, other = (max(pair) for pair in zip(body.decrements, body.most, strict=True))
    if max(ip, mpls, other) > _MOST_DECREMENTS:
        raise UnsupportedError(f"more than {_MOST_DECREMENTS} decrements of a TTL")
    ttl_needed = ip | mpls << 5 | other << 10
    return Compiled(b"".join(ops), body.flags, body.xdp_port, ttl_needed, body.growth, body.choice, stops, body.edit, body.reason)


def in_slots(ops: bytes, further: Sequence[int]) -> list[bytes]:
    """The ops of a megaflow, linked, cut into what goes in its own slot and in these."""
    size = (MAX_OPS - 1) * _OP_BYTES
    parts = [ops[at * size : (at + 1) * size] + make_op(OpCode.NEXT, arg32=slot) for at, slot in enumerate(further)]
    return [*parts, ops[len(further) * size :]]


def _programs(ops: bytes) -> int:
    """How many programs must call each other to execute them."""
    programs, left = 1, RUN_OPS
    for code in ops[::_OP_BYTES]:
        if code in _IN_OTHER_PROGRAMS:
            programs += 2
            left = RUN_OPS
        elif not left:
            programs += 1
            left = RUN_OPS - 1
        else:
            left -= 1
    # One more where a slot ends. The first one goes no further than to an op that is not for it.
    programs += len(ops) // _OP_BYTES // MAX_OPS
    return programs + any(code >= OpCode.PUSH_MPLS for code in ops[::_OP_BYTES])


_CHOICES: Final = (Select, Failover)
_TO_PORTS: Final = (Forward, Flood, Clone, Again, *_CHOICES)
_OUTPUTS: Final = (Controller, *_TO_PORTS)
_COPIES: Final = (Flood, Controller)
"""Outputs that never take the packet itself."""
_OF_ANY_PART: Final = MegaflowFlag.POPS | MegaflowFlag.PUSHES_MPLS
"""Flags that a megaflow has if a part of its actions has them."""
_IN_COPIES: Final = {Forward, Flood, Controller, SetField, SetQueue, PushTag, PopTag, DecTtl, DecMplsTtl, CopyTtlOut, CopyTtlIn}
_UNSEEN: Final = (SetField, SetQueue, PushTag, PopTag, PushMpls, PopMpls, PushPbb, PopPbb, CopyTtlOut, CopyTtlIn)
"""At the end of a list nobody sees them."""


def _copies_first(actions: Sequence[DatapathAction]) -> Sequence[DatapathAction]:
    """With the outputs at the end in the order in which the packet needs not be copied for the last of them, if that may be."""
    at = len(actions)
    while at and isinstance(actions[at - 1], Forward | Flood | Controller):
        at -= 1
    outputs = actions[at:]
    if not outputs or isinstance(outputs[-1], Forward):
        return actions
    copies = [action for action in outputs if isinstance(action, _COPIES)]
    return [*actions[:at], *copies, *(action for action in outputs if isinstance(action, Forward))]


def _why_not_at_xdp(outputs: Sequence[DatapathAction], *, queued: bool) -> str:
    """For a list that has these outputs, and no plug-in."""
    for kind, reason in (
        (Flood, "a flood"),
        (Controller, "a copy for the controllers"),
        (_CHOICES, "a group that chooses"),
        (Clone, "a copy with changes of its own"),
        (Again, "it is parsed again"),
    ):
        if any(isinstance(output, kind) for output in outputs):
            return reason
    if len(outputs) > 1:
        return "several outputs"
    return "a queue" if queued else "a change behind its output"


class _Compilation:
    """The ops of one list of actions, with what must be known of those before each."""

    def __init__(self, *, after_meters: bool = False) -> None:
        self.ops: list[bytes] = []
        self.flags = MegaflowFlag(0)
        self.xdp_port = 0
        self.growth = 0
        self.decrements = [0, 0, 0]
        """How often one is taken from the outermost TTL of a packet of IP, of MPLS, and of neither."""
        self.choice: CompiledChoice | None = None
        self.stops: list[int] = []
        self.edit: Edit | None = None
        self.reason = ""
        """As in Compiled."""
        # A meter may have remarked the DSCP, which the IPv4 checksum covers.
        self._stale = after_meters
        self._queued = False
        # What eBPF knows of the headers, without parsing them again.
        self._retyped = self._retyped_icmp = False
        self._tags_known = True
        self._popped = 0
        self._ttl_known = True
        self._pushed_mpls = False
        self._tags = 0
        """Pushed so far."""
        self.most = [0, 0, 0]
        """The most decrements of any copy, with those before it."""

    def run(self, actions: Sequence[DatapathAction]) -> None:
        """Raises UnsupportedError."""
        while actions and isinstance(actions[-1], _UNSEEN):
            actions = actions[:-1]
        actions = _copies_first(actions)
        for n, action in enumerate(actions):
            self._one(action, last=n == len(actions) - 1)
        self.ops.append(make_op(OpCode.END))
        if self.stops:
            self.reason = "a plug-in"
            return
        outputs = [action for action in actions if isinstance(action, _OUTPUTS)]
        if not outputs:
            self.flags |= MegaflowFlag.XDP
        elif len(outputs) == 1 and not self._queued and isinstance(final := actions[-1], Forward):
            self.flags |= MegaflowFlag.XDP
            self.xdp_port = port_place(final.port)
            if len(self.ops) <= EDIT_OPS:
                self.edit = edit(actions[:-1])
        else:
            self.reason = _why_not_at_xdp(outputs, queued=self._queued)
        if MegaflowFlag.XDP in self.flags and len(self.ops) == 1 + len(outputs):
            self.flags |= MegaflowFlag.DIRECT

    def _one(self, action: DatapathAction, *, last: bool) -> None:
        if self._stale and isinstance(action, (*_OUTPUTS, PushMpls, PopMpls)):
            self.ops.append(make_op(OpCode.CHECKSUMS))
            self._stale = False
        match action:
            case Forward(port=port):
                self.ops.append(make_op(OpCode.FORWARD if last else OpCode.OUTPUT, arg32=port_place(port)))
            case Flood():
                self.ops.append(make_op(OpCode.FLOOD))
            case Controller():
                self._to_controllers(action)
            case Select(ways=ways) | Failover(ways=ways) if last:
                self._choose(action, ways)
            case SetField(field=field, value=value):
                self._set(field.name, value)
            case SetQueue(queue_id=queue_id):
                self.ops.append(make_op(OpCode.SET_QUEUE, arg32=queue_class(queue_id)))
                self._queued = True
            case CallPlugin(plugin_id=plugin_id, arguments=arguments):
                self._call_plugin(plugin_id, arguments)
            case PushTag() | PopTag():
                self._tag(action)
            case PushMpls() | PopMpls() | DecMplsTtl() | DecTtl() | CopyTtlOut() | CopyTtlIn():
                self._header(action)
            case PushPbb() | PopPbb():
                raise UnsupportedError(_PBB)
            case Again(place=place):
                self.ops.append(make_op(OpCode.AGAIN, arg8=not self.ops, arg32=place))
            case Meter():
                raise UnsupportedError("a meter behind other actions")
            case Clone(actions=copied):
                self._clone(copied)
            case _:
                raise UnsupportedError("a group before other actions")

    def _clone(self, actions: Sequence[DatapathAction]) -> None:
        """The packet is put back as it was when its copy is done with."""
        kinds = {type(action) for action in actions}
        if not kinds <= _IN_COPIES:
            raise UnsupportedError("a copy with a group that chooses, with MPLS, a plug-in or copies of its own")
        body = self._on_a_way()
        body._retyped = self._retyped
        for action in actions:
            body._one(action, last=False)
        tags = bool(kinds & {PushTag, PopTag}) or any(
            isinstance(act, SetField) and act.field.name in _VLAN_FIELDS for act in actions
        )
        if tags and self._tags + sum(isinstance(action, PushTag) for action in actions) > MAX_TAGS_OF_COPY - MAX_VLAN_TAGS:
            raise UnsupportedError(f"a copy with more than {MAX_TAGS_OF_COPY} tags")
        self.ops += [make_op(OpCode.SAVE, arg8=tags), *body.ops, make_op(OpCode.RESTORE, arg8=tags)]
        self.flags |= body.flags & _OF_ANY_PART
        self.most = [
            max(most, before + more) for most, before, more in zip(self.most, self.decrements, body.decrements, strict=True)
        ]

    def _to_controllers(self, action: Controller) -> None:
        says = action.cookie.to_bytes(8, "big") + action.metadata.to_bytes(8, "big")
        self.ops += [
            bytes((OpCode.OPERAND_0, 0)) + says[:6],
            bytes((OpCode.OPERAND_1, action.table_id)) + says[6:12],
            bytes((OpCode.CONTROLLER, action.reason)) + action.max_len.to_bytes(2, _NATIVE) + says[12:],
        ]

    def _call_plugin(self, plugin_id: int, arguments: bytes) -> None:
        self._need_headers()  # it is to see the packet as it is, and eBPF does not parse it again
        if self._pushed_mpls:
            raise UnsupportedError("a plug-in behind a pushed label")
        if self._stale:
            self.ops.append(make_op(OpCode.CHECKSUMS))
            self._stale = False
        self.ops += [bytes((OpCode.OPERAND_0, 0)) + arguments[:6], bytes((OpCode.OPERAND_1, 0)) + arguments[6:12]]
        self.stops.append(len(self.ops))
        self.ops.append(make_op(OpCode.PLUGIN, arg8=plugin_id, arg32=NO_SLOT))

    def _tag(self, action: PushTag | PopTag) -> None:
        if not self._tags_known:
            raise UnsupportedError(_BROUGHT_TO_LIGHT)
        if isinstance(action, PushTag):
            self.ops.append(make_op(OpCode.PUSH_TAG, arg16=action.tpid, arg32=action.tci))
            self.growth += VLAN_TAG_BYTES
            self._tags += 1
            return
        self.ops.append(make_op(OpCode.POP_TAG))
        self._popped += 1
        if self._popped > MAX_VLAN_TAGS:
            self.flags |= MegaflowFlag.POPS

    def _header(self, action: PushMpls | PopMpls | DecMplsTtl | DecTtl | CopyTtlOut | CopyTtlIn) -> None:
        """MPLS and TTLs."""
        self._need_headers()
        match action:
            case PushMpls(ethertype=ethertype):
                self.ops.append(wire_op(OpCode.PUSH_MPLS, ethertype.to_bytes(2, "big")))
                self.flags |= MegaflowFlag.PUSHES_MPLS
                self.growth += MPLS_BYTES
                # Tags may hide the TTL that it copies: then it has 0.
                self._ttl_known &= not self._tags
                self._pushed_mpls = True
                self._popped = 0
                self._retyped_icmp = False
            case PopMpls(ethertype=ethertype):
                self.ops.append(wire_op(OpCode.POP_MPLS, ethertype.to_bytes(2, "big")))
                self._retyped = True
                self._tags_known = ethertype not in _TPIDS
            case DecTtl() | DecMplsTtl():
                self._decrement(of_mpls=isinstance(action, DecMplsTtl))
            case CopyTtlOut():
                self.ops.append(make_op(OpCode.COPY_TTL_OUT))
                self._ttl_known = False
                self._stale = True
            case CopyTtlIn():
                self.ops.append(make_op(OpCode.COPY_TTL_IN))

    def _decrement(self, *, of_mpls: bool) -> None:
        if not self._ttl_known:
            raise UnsupportedError("it decrements a TTL that an action has set, copied or hidden")
        self.ops.append(make_op(OpCode.DEC_MPLS_TTL if of_mpls else OpCode.DEC_TTL))
        ip, mpls, other = self.decrements
        if not of_mpls:
            self.decrements = [ip + (not self._pushed_mpls), mpls, other]
            self._stale = True
        elif self._pushed_mpls:
            # The entry has the TTL that was the outermost, or 0.
            self.decrements = [ip + 1, mpls + 1, other + 1]
        else:
            self.decrements = [ip, mpls + 1, other]

    def _need_headers(self) -> None:
        """The next op depends on what is behind the tags."""
        if self._retyped:
            raise UnsupportedError(_BROUGHT_TO_LIGHT)
        if self._popped:
            self.flags |= MegaflowFlag.POPS

    def _set(self, name: str, value: int) -> None:
        setter = SETTERS.get(name)
        if setter is None:
            raise UnsupportedError(_PBB)
        if setter.layered or name == "ip_proto":
            self._need_headers()
        elif name in _VLAN_FIELDS or name == "eth_type":
            if not self._tags_known:
                raise UnsupportedError(_BROUGHT_TO_LIGHT)
            if self._popped >= (MAX_VLAN_TAGS if name in _VLAN_FIELDS else 1):
                self.flags |= MegaflowFlag.POPS
        if self._retyped_icmp and name in _ND_FIELDS | _RETYPES_ICMP:
            raise UnsupportedError(_BROUGHT_TO_LIGHT)
        self.ops.extend(setter.ops(value))
        self._stale |= setter.checksum
        self._retyped |= name in _RETYPES
        self._tags_known &= name != "eth_type" or value not in _TPIDS
        self._retyped_icmp |= name in _RETYPES_ICMP
        self._ttl_known &= name not in _TTLS

    def _choose(self, action: Select | Failover, ways: Sequence[Way]) -> None:
        self._need_headers()  # what is hashed
        if isinstance(action, Select):
            kind, values = ChoiceKind.SELECT, [min(limit, 0xFFFFFFFF) for limit in thresholds(ways)]
        else:
            kind, values = ChoiceKind.FAILOVER, [port_place(way.watch_port) for way in ways]
        compiled = []
        most = [0, 0, 0]
        for way, value in zip(ways, values, strict=True):
            body = self._on_a_way()
            body.run(way.actions)
            if len(body.ops) > MAX_OPS:
                raise UnsupportedError(f"more than {MAX_OPS - 1} ops in a bucket")
            if body.choice is not None:
                raise UnsupportedError("a group that chooses in a bucket of another")
            compiled.append(CompiledWay(value, b"".join(body.ops)))
            self.flags |= body.flags & _OF_ANY_PART
            most = [max(counts) for counts in zip(most, body.decrements, body.most, strict=True)]
        self.decrements = [sum(pair) for pair in zip(self.decrements, most, strict=True)]
        self.choice = CompiledChoice(kind, tuple(compiled))
        self.ops.append(make_op(OpCode.CHOOSE))

    def _on_a_way(self) -> _Compilation:
        """For ops that follow these."""
        way = _Compilation()
        way._retyped_icmp, way._tags_known, way._popped = self._retyped_icmp, self._tags_known, self._popped
        way._ttl_known, way._pushed_mpls, way._tags = self._ttl_known, self._pushed_mpls, self._tags
        return way
