"""Translation: one packet's way through the flow tables, turned into datapath actions for all packets like it.

The packet's flow key goes through the tables as section 5 of the specification (1.3.5) says; each bit of the packet that a
decision depends on is noted in the megaflow's mask (``tracked_key``). Actions change the key too, so later tables see what they
should. Where something depends on headers that an action brought to light, the translation ends with ``Translation.again``, and
goes on by ``resume`` when the rewritten frame has been parsed. Such a translation must not become a megaflow.

Invariant: translating a key that differs only in bits outside ``Translation.mask`` takes the same steps and gives the same actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from appliance.model.actions import OFPCML_NO_BUFFER, Action, DecNwTtl, Output, PopVlan, PushVlan, SetField, SetNwTtl
from appliance.model.fields import (
    IN_PORT,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_TTL,
    METADATA,
    OXM_FIELDS,
    TUNNEL_ID,
    VLAN_PRESENT,
    VLAN_VID,
    Field,
    Layer,
    Prerequisite,
)
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PacketInReason, PopTag, PushTag
from appliance.model.ports import MAX_PORT_NUMBER, PortNo
from appliance.pipeline.action_list import VLAN_FIELDS, needed, set_in_push
from appliance.pipeline.action_set import ActionSet
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.tracked_key import CARRIED_BITS, HAS_TAG, ParseAgainError, Snapshot, TrackedKey, layer_bits
from appliance.pipeline.translation import Continuation, Lookup, Origin, Stage, Translation

__all__ = [
    "NO_COOKIE",
    "SUPPORTED_ACTIONS",
    "Continuation",
    "Lookup",
    "Normal",
    "Translation",
    "resume",
    "translate",
    "translate_actions",
]

SUPPORTED_ACTIONS: frozenset[type[Action]] = frozenset({Output, SetField, PushVlan, PopVlan, SetNwTtl, DecNwTtl})
"""Actions that the pipeline can do. Flow-mods and packet-outs with another one are refused before they come here."""

Normal = Callable[[int], Translation]
"""What OFPP_NORMAL does with a flow key: ``mac_table.normal`` with its table and time filled in."""

NO_COOKIE = 0xFFFFFFFFFFFFFFFF
"""The cookie in a packet-in that a packet-out's own actions caused: no flow entry did."""

_PACKET_OUT = Origin(0, NO_COOKIE, PacketInReason.ACTION)
_IP_LAYERS = layer_bits(Layer.IP)


def _headers(field: Field) -> tuple[int, ...]:
    """Groups of bits in ``layers``; a packet that has the field has one bit of each."""
    groups = [layer_bits(field.layer)] if field.layer else []
    if Prerequisite(IP_PROTO.name, (IP_PROTO_ICMP,)) in field.prerequisites:
        groups.append(layer_bits(Layer.IPV4))
    if Prerequisite(IP_PROTO.name, (IP_PROTO_ICMPV6,)) in field.prerequisites:
        groups.append(layer_bits(Layer.IPV6))
    return tuple(groups)


_HEADERS = {field.name: (HAS_TAG,) if field.name in VLAN_FIELDS else _headers(field) for field in (*OXM_FIELDS, IP_TTL)}


class _StopError(Exception):
    """The packet goes no further: its TTL is used up."""


class _Walk:
    """One packet on its way. ``run`` takes the method to start with."""

    __slots__ = (
        "_action_set",
        "_done",
        "_entry",
        "_in_port",
        "_key",
        "_lookups",
        "_new_protocol",
        "_normal",
        "_normal_keys",
        "_origin",
        "_out",
        "_pending",
        "_pipeline",
        "_set_items",
        "_stage",
        "_submit",
        "_table_id",
    )

    def __init__(self, pipeline: Pipeline, key: int, normal: Normal | None) -> None:
        self._pipeline = pipeline
        self._normal = normal
        self._key = TrackedKey(key)
        self._in_port = IN_PORT.get(key)
        self._out: list[DatapathAction] = []
        self._lookups: list[tuple[int, FlowEntry | None, Snapshot]] = []
        self._normal_keys: list[int] = []
        self._new_protocol = False
        # Where it is, for a continuation.
        self._stage = Stage.LOOKUP
        self._table_id = 0
        self._entry: FlowEntry | None = None
        self._origin = _PACKET_OUT
        self._pending: tuple[Action, ...] = ()
        self._done = 0
        self._action_set: ActionSet | None = None
        self._set_items: list[tuple[Action, Origin]] = []
        self._submit = False

    def run(self, go: Callable[[], None]) -> Translation:
        again: Continuation | None = None
        try:
            go()
        except _StopError:
            pass
        except ParseAgainError:
            again = self._continuation()
        key = self._key
        return Translation(
            key.packet,
            key.mask,
            needed(self._out, frame_needed=again is not None),
            tuple([Lookup(table_id, then.key, key.known(then), entry) for table_id, entry, then in self._lookups]),
            tuple(self._normal_keys),
            again is not None,
            again,
        )

    # ── the way ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def packet_out(self, actions: tuple[Action, ...], submit: bool) -> None:
        """A packet-out's actions, and the tables after them if ``submit``."""
        self._stage = Stage.PACKET_OUT
        self._submit = submit
        self._run(actions)
        if submit:
            self.tables()

    def tables(self) -> None:
        """From the look-up in ``_table_id`` to the end."""
        while True:
            self._stage = Stage.LOOKUP
            entry = self._look_up()
            if entry is None:
                return
            self._entry = entry
            reason = PacketInReason.NO_MATCH if entry.is_table_miss else PacketInReason.ACTION
            self._origin = Origin(self._table_id, entry.cookie, reason)
            self._stage = Stage.APPLY
            self._run(entry.program.apply)
            if not self._after_apply(entry):
                break
        self._run_action_set()

    def resume(self, again: Continuation) -> None:
        self._key = TrackedKey(self._key.packet, again.carried)
        self._stage, self._table_id, self._origin = again.stage, again.table_id, again.origin
        self._entry = entry = again.entry
        if again.action_set:
            self._action_set = ActionSet(again.action_set)
        if self._stage is Stage.PACKET_OUT:
            self.packet_out(again.pending, again.submit)
        elif self._stage is Stage.LOOKUP:
            self.tables()
        elif self._stage is Stage.APPLY and entry is not None:
            self._run(again.pending)
            if self._after_apply(entry):
                self.tables()
            else:
                self._run_action_set()
        else:
            self._run_action_set()

    def _look_up(self) -> FlowEntry | None:
        key = self._key
        key.settle()
        entry, consulted = self._pipeline.lookup(self._table_id, key.key)
        key.need(consulted)
        self._lookups.append((self._table_id, entry, key.snapshot()))
        return entry

    def _after_apply(self, entry: FlowEntry) -> bool:
        """The instructions after Apply-Actions; whether there is a next table."""
        program = entry.program
        if program.clear and self._action_set is not None:
            self._action_set.clear()
        if program.write:
            if self._action_set is None:
                self._action_set = ActionSet()
            self._action_set.write(program.write, self._origin)
        if program.metadata_mask:
            self._key.write_metadata(program.metadata, program.metadata_mask)
        if program.goto is None:
            return False
        self._table_id = program.goto
        return True

    def _run(self, actions: tuple[Action, ...]) -> None:
        self._pending = actions
        for at, action in enumerate(actions):
            self._done = at
            self._do(action)

    def _run_action_set(self) -> None:
        if self._action_set is None:
            return
        self._stage = Stage.ACTION_SET
        self._set_items = self._action_set.in_order()
        for at, (action, origin) in enumerate(self._set_items):
            self._done, self._origin = at, origin
            self._do(action)

    def _continuation(self) -> Continuation:
        if self._stage is Stage.ACTION_SET:
            pending: tuple[Action, ...] = ()
            items = tuple(self._set_items[self._done :])
        else:
            pending = () if self._stage is Stage.LOOKUP else self._pending[self._done :]
            items = () if self._action_set is None else self._action_set.items()
        carried = self._key.key & CARRIED_BITS
        return Continuation(self._stage, self._table_id, self._entry, pending, items, self._origin, carried, self._submit)

    # ── actions ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _do(self, action: Action) -> None:
        match action:
            case Output():
                self._output(action)
            case SetField(field, value):
                self._set_field(field, value)
            case PushVlan(ethertype):
                self._out.append(PushTag(ethertype, self._key.push_tag()))
            case PopVlan():
                if self._key.pop_tag():
                    self._out.append(PopTag())
            case SetNwTtl(ttl):
                self._set_field(IP_TTL, ttl)
            case DecNwTtl():
                self._dec_ttl()
            case _:
                raise ValueError(f"the pipeline has no action {action}")

    def _output(self, action: Output) -> None:
        port = action.port
        in_port = self._in_port
        if 0 < port <= MAX_PORT_NUMBER:
            if port != in_port:
                self._out.append(Forward(port))
        elif port == PortNo.CONTROLLER:
            self._to_controller(self._origin.reason, action.max_len)
        elif port in (PortNo.FLOOD, PortNo.ALL):
            self._out.append(Flood())
        elif port == PortNo.IN_PORT:
            if 0 < in_port <= MAX_PORT_NUMBER:
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
        if not self._key.write(field, value) or field is TUNNEL_ID:  # a tunnel id is not in the frame
            return
        if field is IP_PROTO:
            self._new_protocol = True
        if field.name in VLAN_FIELDS and set_in_push(self._out, self._key.outer_tci):
            return
        self._out.append(SetField(field, value))

    def _dec_ttl(self) -> None:
        if not self._key.has(_IP_LAYERS):
            return
        if not self._key.knows_ttl:
            # The fast path looks at each packet's own TTL: it need not be the same for all packets of the megaflow.
            self._out.append(DecTtl())
            self._key.ttl_changed()
            return
        ttl = IP_TTL.get(self._key.key)
        if ttl <= 1:
            self._to_controller(PacketInReason.INVALID_TTL, OFPCML_NO_BUFFER)
            raise _StopError
        self._set_field(IP_TTL, ttl - 1)


def translate(pipeline: Pipeline, key: int, normal: Normal | None = None) -> Translation:
    """What the tables do with a packet that came in, from table 0 on.

    Without ``normal`` an output to OFPP_NORMAL does nothing. Raises ValueError for an action that is not in SUPPORTED_ACTIONS.
    Changes and counts nothing.
    """
    walk = _Walk(pipeline, key, normal)
    return walk.run(walk.tables)


def translate_actions(pipeline: Pipeline, key: int, actions: tuple[Action, ...], normal: Normal | None = None) -> Translation:
    """What a packet-out does: its actions, on a packet with this flow key (whose ``in_port`` is the packet-out's).

    Only here an output to OFPP_TABLE sends the packet into the pipeline. See ``Translation.also`` for actions that follow it.
    """
    table = next((at for at, action in enumerate(actions) if isinstance(action, Output) and action.port == PortNo.TABLE), None)
    walk = _Walk(pipeline, key, normal)
    translation = walk.run(lambda: walk.packet_out(actions[:table], table is not None))
    if table is None or not any(isinstance(action, Output) for action in actions[table + 1 :]):
        return translation
    changes = tuple(action for action in actions[:table] if not isinstance(action, Output))
    rest = translate_actions(pipeline, key, changes + actions[table + 1 :], normal)
    return replace(translation, also=(replace(rest, also=()), *rest.also))


def resume(pipeline: Pipeline, again: Continuation, key: int, normal: Normal | None = None) -> Translation:
    """Go on where a translation needed its rewritten frame parsed again; ``key`` is that frame's, with the same ``in_port``.

    The result is for this packet only (``slow_path_only``), and may need another parse itself.
    """
    walk = _Walk(pipeline, key, normal)
    return replace(walk.run(lambda: walk.resume(again)), slow_path_only=True)
