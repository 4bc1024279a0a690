"""Translation: one packet's way through the flow tables, turned into datapath actions for all packets like it.

The packet's flow key goes through the tables as section 5 of the specification (1.3.5) says; each bit of the packet that a
decision depends on is noted in the megaflow's mask. Actions change the key too, so later tables see what they should. Bits that an
action has *written* are the same for all packets, so consulting them costs nothing.

Headers behind the first change
-------------------------------
Some actions make the key say nothing about headers further in: with its outer tag gone, a packet with three tags shows one that the
parser did not reach; a new ``eth_type`` makes other headers of the same bytes. Such bits of the key are *stale*. Nothing happens
unless something asks for a stale bit; then the translation ends there with ``Translation.again``, and goes on by ``resume`` when
the rewritten frame has been parsed. It must not become a megaflow then.

A pushed or popped tag shifts the view of the parser, which reaches MAX_VLAN_TAGS tags. Whether the shift hides or shows anything
depends on how many tags the packet has, and is looked at only when something needs to know (``_settle``).

Invariant: translating a key that differs only in bits outside ``Translation.mask`` takes the same steps and gives the same actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from appliance.model.actions import OFPCML_NO_BUFFER, Action, DecNwTtl, Output, PopVlan, PushVlan, SetField, SetNwTtl
from appliance.model.fields import (
    BY_NAME,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_QINQ,
    ETH_TYPE_VLAN,
    IN_PORT,
    INNER_VLAN_TCI,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_TTL,
    KEY_MASK,
    LAYERS,
    METADATA,
    OXM_FIELDS,
    TUNNEL_ID,
    VLAN_PCP,
    VLAN_PRESENT,
    VLAN_TCI,
    VLAN_VID,
    Field,
    Layer,
    Prerequisite,
)
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PacketInReason, PopTag, PushTag
from appliance.model.ports import MAX_PORT_NUMBER, PortNo
from appliance.pipeline.action_set import ActionSet
from appliance.pipeline.flow_table import FlowEntry, Pipeline
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

Normal = Callable[[int], Translation]
"""What OFPP_NORMAL does with a flow key: ``mac_table.normal`` with its table and time filled in."""

NO_COOKIE = 0xFFFFFFFFFFFFFFFF
"""The cookie in a packet-in that a packet-out's own actions caused: no flow entry did."""

_CARRIED = METADATA.mask | TUNNEL_ID.mask
_TPIDS = (ETH_TYPE_VLAN, ETH_TYPE_QINQ)
_TAG = 0xFFFF
_PRESENT = VLAN_PRESENT << VLAN_TCI.shift
_INNER_PRESENT = VLAN_PRESENT << INNER_VLAN_TCI.shift
_TAGS = VLAN_TCI.mask | INNER_VLAN_TCI.mask
_VLAN_FIELDS = (VLAN_VID.name, VLAN_PCP.name)


def _layers(layers: Layer) -> int:
    return int(layers) << LAYERS.shift


_IP_LAYERS = _layers(Layer.IP)
_PARSED = KEY_MASK & ~(IN_PORT.mask | _CARRIED | ETH_DST.mask | ETH_SRC.mask | VLAN_TCI.mask)
"""What the parser would find differently if it saw one tag more or less."""
_ND = _layers(Layer.ND | Layer.ND_SLL | Layer.ND_TLL) | sum(
    BY_NAME[name].mask for name in ("ipv6_nd_target", "ipv6_nd_sll", "ipv6_nd_tll")
)
_LAYER_4 = (
    _ND
    | _layers(Layer.TCP | Layer.UDP | Layer.SCTP | Layer.ICMP)
    | sum(BY_NAME[name].mask for name in ("tcp_src", "tcp_dst", "tcp_flags", "ip_frag", "ipv6_exthdr"))
)
_EXTENSION_HEADERS = (0, 43, 44, 50, 51, 60, 135, 139, 140)
"""Values of ``ip_proto`` that an IPv6 parser takes for another extension header (IANA, IPv6 extension header types)."""


def _stale_after(field: Field, value: int) -> int:
    """The bits of the key that no longer tell what is in the frame once this field has been set."""
    if field is ETH_TYPE:
        return _PARSED | VLAN_TCI.mask if value in _TPIDS else _PARSED & ~ETH_TYPE.mask
    if field is IP_PROTO:
        return _LAYER_4 | IP_PROTO.mask if value in _EXTENSION_HEADERS else _LAYER_4
    if field.name in ("icmpv6_type", "icmpv6_code"):
        return _ND
    return 0


_RESHAPING = frozenset({ETH_TYPE.name, IP_PROTO.name, "icmpv6_type", "icmpv6_code"})


def _headers(field: Field) -> tuple[int, ...]:
    """Groups of bits in ``layers``; a packet that has the field has one bit of each."""
    groups = [_layers(field.layer)] if field.layer else []
    if Prerequisite(IP_PROTO.name, (IP_PROTO_ICMP,)) in field.prerequisites:
        groups.append(_layers(Layer.IPV4))
    if Prerequisite(IP_PROTO.name, (IP_PROTO_ICMPV6,)) in field.prerequisites:
        groups.append(_layers(Layer.IPV6))
    return tuple(groups)


_HEADERS = {field.name: _headers(field) for field in (*OXM_FIELDS, IP_TTL)}


class _ParseAgainError(Exception):
    """A stale bit is needed."""


class _StopError(Exception):
    """The packet goes no further (its TTL is used up)."""


class _Tag(NamedTuple):
    """A tag of the packet as it is now: its value, which bits of it were written, where it was in the packet's key (or -1)."""

    value: int
    written: int
    origin: int


_NO_TAG = _Tag(0, _TAG, -1)
_UNSEEN_TAG = _Tag(0, 0, -1)
"""Behind the tags that the parser reached: nothing may depend on it before ``_settle`` has said that there is none."""


class _Seen(NamedTuple):
    """A look-up as it was; what was known then can be said only in the end."""

    table_id: int
    key: int
    entry: FlowEntry | None
    written: int
    stale: int
    origins: tuple[int, int] | None


class _Walk:
    """One packet on its way."""

    __slots__ = (
        "action_set",
        "done",
        "entry",
        "in_port",
        "key",
        "lookups",
        "mask",
        "normal",
        "normal_keys",
        "origin",
        "out",
        "packet",
        "pending",
        "pipeline",
        "set_items",
        "shift",
        "stage",
        "stale",
        "submit",
        "table_id",
        "tags",
        "unsettled",
        "written",
    )

    def __init__(self, pipeline: Pipeline, key: int, normal: Normal | None) -> None:
        self.pipeline = pipeline
        self.normal = normal
        self.packet = key
        self.key = key & ~METADATA.mask
        self.in_port = IN_PORT.get(key)
        self.mask = IN_PORT.mask
        self.written = METADATA.mask
        self.stale = 0
        self.tags: list[_Tag] | None = None
        """From the outside in; None until one is pushed or popped."""
        self.shift = 0
        """Tags pushed less tags popped."""
        self.unsettled = False
        self.out: list[DatapathAction] = []
        self.lookups: list[_Seen] = []
        self.normal_keys: list[int] = []
        self.action_set: ActionSet | None = None
        self.stage = Stage.LOOKUP
        self.table_id = 0
        self.entry: FlowEntry | None = None
        self.origin = _PACKET_OUT
        self.pending: tuple[Action, ...] = ()
        self.done = 0
        self.set_items: list[tuple[Action, Origin]] = []
        self.submit = False

    # ── the way ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def run(self, go: Callable[[], None]) -> Translation:
        try:
            go()
        except _StopError:
            pass
        except _ParseAgainError:
            return self._translation(self._continuation())
        return self._translation(None)

    def packet_out(self) -> None:
        self.stage = Stage.PACKET_OUT
        self._run(self.pending)
        if self.submit:
            self.tables()

    def tables(self) -> None:
        """From the look-up in ``table_id`` to the end."""
        while True:
            self.stage = Stage.LOOKUP
            entry = self._look_up()
            if entry is None:
                return
            self.entry = entry
            self.origin = Origin(
                self.table_id, entry.cookie, PacketInReason.NO_MATCH if entry.is_table_miss else PacketInReason.ACTION
            )
            self.stage = Stage.APPLY
            self._run(entry.program.apply)
            if not self._after_apply(entry):
                break
        self.finish()

    def rest_of_entry(self) -> None:
        """From the middle of an entry's Apply-Actions to the end."""
        entry = self.entry
        self._run(self.pending)
        if entry is not None and self._after_apply(entry):
            self.tables()
        else:
            self.finish()

    def finish(self) -> None:
        """The action set."""
        if self.action_set is None:
            return
        self.stage = Stage.ACTION_SET
        self.set_items = self.action_set.in_order()
        for at, (action, origin) in enumerate(self.set_items):
            self.done, self.origin = at, origin
            self._do(action)

    def _look_up(self) -> FlowEntry | None:
        if self.unsettled:
            self._settle()
        entry, consulted = self.pipeline.lookup(self.table_id, self.key)
        self._need(consulted)
        tags = self.tags
        origins = None if tags is None else (tags[0].origin, tags[1].origin if len(tags) > 1 else -1)
        self.lookups.append(_Seen(self.table_id, self.key, entry, self.written, self.stale, origins))
        return entry

    def _after_apply(self, entry: FlowEntry) -> bool:
        """The instructions after Apply-Actions; whether there is a next table."""
        program = entry.program
        if program.clear and self.action_set is not None:
            self.action_set.clear()
        if program.write:
            if self.action_set is None:
                self.action_set = ActionSet()
            self.action_set.write(program.write, self.origin)
        if program.metadata_mask:
            bits = program.metadata_mask << METADATA.shift
            self.key = (self.key & ~bits) | (program.metadata << METADATA.shift)
        if program.goto is None:
            return False
        self.table_id = program.goto
        return True

    def _run(self, actions: tuple[Action, ...]) -> None:
        self.pending = actions
        for at, action in enumerate(actions):
            self.done = at
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Output():
                self._output(action)
            case SetField(field, value):
                self._set_field(field, value)
            case PushVlan(ethertype):
                self._push_vlan(ethertype)
            case PopVlan():
                self._pop_vlan()
            case SetNwTtl(ttl):
                self._set_field(IP_TTL, ttl)
            case DecNwTtl():
                self._dec_ttl()
            case _:
                raise ValueError(f"the pipeline has no action {action}")

    # ── what is known ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _need(self, bits: int) -> None:
        """What happens next depends on these bits of the key."""
        if self.unsettled and bits & _PARSED:
            self._settle()
        bits &= ~self.written
        if bits & self.stale:
            raise _ParseAgainError
        if self.tags is not None and bits & _TAGS:
            bits = _in_packet(bits, self.tags[0].origin, self.tags[1].origin if len(self.tags) > 1 else -1)
        self.mask |= bits

    def _current(self, bits: int) -> None:
        """These bits are about to be written: they must be those that a parser would find now."""
        if self.unsettled and bits & _PARSED:
            self._settle()
        if bits & self.stale:
            raise _ParseAgainError

    def _forget(self, bits: int) -> None:
        self.stale |= bits
        self.written &= ~bits

    def _settle(self) -> None:
        """Find out whether the pushed and popped tags hide or show something: whether the parser would see what it saw at first."""
        self.unsettled = False
        packet = self.packet
        if self.shift < 0:
            self.mask |= _INNER_PRESENT
            more = False
            if packet & _INNER_PRESENT:
                self.mask |= ETH_TYPE.mask
                more = ETH_TYPE.get(packet) in _TPIDS
            if not more and self.tags is not None and len(self.tags) < 2:
                self.tags.append(_NO_TAG)
                self._show_tags()
        elif self.shift == 1:
            self.mask |= _INNER_PRESENT
            more = bool(packet & _INNER_PRESENT)
        elif self.shift == 2:
            self.mask |= _PRESENT
            more = bool(packet & _PRESENT)
        else:
            more = True
        if more:
            self._forget(_PARSED)

    # ── actions ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _output(self, action: Output) -> None:
        port = action.port
        in_port = self.in_port
        if 0 < port <= MAX_PORT_NUMBER:
            if port != in_port:
                self.out.append(Forward(port))
        elif port in (PortNo.FLOOD, PortNo.ALL):
            self.out.append(Flood())
        elif port == PortNo.CONTROLLER:
            origin = self.origin
            self.out.append(Controller(origin.reason, origin.table_id, origin.cookie, action.max_len, METADATA.get(self.key)))
        elif port == PortNo.IN_PORT:
            if 0 < in_port <= MAX_PORT_NUMBER:
                self.out.append(Forward(in_port))
        elif port == PortNo.NORMAL and self.normal is not None:
            decision = self.normal(self.key)
            self._need(decision.mask)
            self.normal_keys.append(self.key)
            self.out.extend(decision.actions)

    def _set_field(self, field: Field, value: int) -> None:
        if field.name in _VLAN_FIELDS:
            self._need(_PRESENT)
            if not self.key & _PRESENT:
                return
            if field is VLAN_VID:
                value |= VLAN_PRESENT
        else:
            for group in _HEADERS[field.name]:
                self._need(group)
                if not self.key & group:
                    return
            self._current(field.mask & ~IP_TTL.mask)
        key = field.put(self.key, value)
        if key == self.key:
            known = self.written if self.tags is not None else (self.written | self.mask) & ~self.stale
            if not field.mask & ~known:
                return  # all packets of the megaflow have this value already
        self.key = key
        self.written |= field.mask
        self.stale &= ~field.mask
        if field.name in _RESHAPING:
            self._forget(_stale_after(field, value))
        if field is TUNNEL_ID:
            return  # not in the frame
        if field.name in _VLAN_FIELDS:
            if self.tags is not None:
                tag = self.tags[0]
                self.tags[0] = _Tag(VLAN_TCI.get(key), tag.written | field.mask >> VLAN_TCI.shift, tag.origin)
            if self._set_in_push():
                return
        self.out.append(SetField(field, value))

    def _set_in_push(self) -> bool:
        """If the outermost tag was pushed since the last output, let the push put the right one there at once."""
        at = len(self.out) - 1
        while at >= 0 and isinstance(self.out[at], SetField):
            at -= 1
        push = self.out[at] if at >= 0 else None
        if not isinstance(push, PushTag):
            return False
        self.out[at] = PushTag(push.tpid, VLAN_TCI.get(self.key) & ~VLAN_PRESENT)
        return True

    def _push_vlan(self, ethertype: int) -> None:
        self._need(_PRESENT)
        tci = 0
        if self.key & _PRESENT:
            self._need(VLAN_TCI.mask)
            tci = VLAN_TCI.get(self.key) & ~VLAN_PRESENT
        self.out.append(PushTag(ethertype, tci))
        self._get_tags().insert(0, _Tag(tci | VLAN_PRESENT, _TAG, -1))
        self._moved(1)

    def _pop_vlan(self) -> None:
        self._need(_PRESENT)
        if not self.key & _PRESENT:
            return
        tags = self._get_tags()
        if len(tags) < 2:
            self._need(INNER_VLAN_TCI.mask)
        self.out.append(PopTag())
        del tags[0]
        self._moved(-1)

    def _get_tags(self) -> list[_Tag]:
        if self.tags is None:
            key, written = self.key, self.written
            self.tags = [_Tag(field.get(key), field.get(written), field.shift) for field in (VLAN_TCI, INNER_VLAN_TCI)]
        return self.tags

    def _moved(self, by: int) -> None:
        self.shift += by
        self.unsettled = self.shift != 0
        self._show_tags()

    def _show_tags(self) -> None:
        """Put the two outermost tags where the key has them."""
        tags = self._get_tags()
        inner = tags[1] if len(tags) > 1 else _UNSEEN_TAG
        self.key = INNER_VLAN_TCI.put(VLAN_TCI.put(self.key, tags[0].value), inner.value)
        self.written = INNER_VLAN_TCI.put(VLAN_TCI.put(self.written, tags[0].written), inner.written)

    def _dec_ttl(self) -> None:
        self._need(_IP_LAYERS)
        if not self.key & _IP_LAYERS:
            return
        if not self.written & IP_TTL.mask:
            # The fast path looks at each packet's own TTL: it need not be the same for all packets of the megaflow.
            self.out.append(DecTtl())
            self.stale |= IP_TTL.mask
            return
        ttl = IP_TTL.get(self.key)
        if ttl <= 1:
            origin = self.origin
            self.out.append(
                Controller(PacketInReason.INVALID_TTL, origin.table_id, origin.cookie, OFPCML_NO_BUFFER, METADATA.get(self.key))
            )
            raise _StopError
        self._set_field(IP_TTL, ttl - 1)

    # ── the result ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _continuation(self) -> Continuation:
        if self.stage is Stage.ACTION_SET:
            pending: tuple[Action, ...] = ()
            items = tuple(self.set_items[self.done :])
        else:
            pending = () if self.stage is Stage.LOOKUP else self.pending[self.done :]
            items = () if self.action_set is None else self.action_set.items()
        carried = self.key & _CARRIED
        return Continuation(self.stage, self.table_id, self.entry, pending, items, self.origin, carried, self.submit)

    def _translation(self, again: Continuation | None) -> Translation:
        return Translation(
            self.packet,
            self.mask,
            _needed(self.out, again is not None),
            tuple([self._lookup(seen) for seen in self.lookups]),
            tuple(self.normal_keys),
            again is not None,
            again,
        )

    def _lookup(self, seen: _Seen) -> Lookup:
        mask = self.mask if seen.origins is None else _from_packet(self.mask, *seen.origins)
        return Lookup(seen.table_id, seen.key, (mask | seen.written) & ~seen.stale, seen.entry)


def _in_packet(bits: int, outer: int, inner: int) -> int:
    """Bits of the two tags in the key as it is now: where those were in the packet's key. -1 is a tag that was not there."""
    moved = bits & ~_TAGS
    if outer >= 0:
        moved |= VLAN_TCI.get(bits) << outer
    if inner >= 0:
        moved |= INNER_VLAN_TCI.get(bits) << inner
    return moved


def _from_packet(mask: int, outer: int, inner: int) -> int:
    """The other way round: bits of the packet's key, as bits of the key at a time when the tags had these origins."""
    moved = mask & ~_TAGS
    if outer >= 0:
        moved |= (mask >> outer & _TAG) << VLAN_TCI.shift
    if inner >= 0:
        moved |= (mask >> inner & _TAG) << INNER_VLAN_TCI.shift
    return moved


def _needed(actions: list[DatapathAction], frame_needed: bool) -> tuple[DatapathAction, ...]:
    """Without the changes that nothing sees: those after the last output, and a set-field that another one overtakes.

    The frame as it is in the end counts as seen if it is needed. Decrementing the TTL sees the packet: it may send it to the
    controller.
    """
    if not actions:
        return ()
    kept: list[DatapathAction] = []
    seen = frame_needed
    overtaken: set[str] = set()
    for action in reversed(actions):
        if isinstance(action, Forward | Flood | Controller | DecTtl):
            seen = True
            overtaken.clear()
        elif not seen:
            continue
        elif isinstance(action, SetField):
            name = action.field.name
            if name in overtaken:
                continue
            if name not in _RESHAPING:
                overtaken.add(name)
        elif isinstance(action, PopTag):
            overtaken.update(_VLAN_FIELDS)
        else:
            overtaken.difference_update(_VLAN_FIELDS)
        kept.append(action)
    kept.reverse()
    return tuple(kept)


_PACKET_OUT = Origin(0, NO_COOKIE, PacketInReason.ACTION)


def translate(pipeline: Pipeline, key: int, normal: Normal | None = None) -> Translation:
    """What the tables do with a packet that came in, from table 0 on.

    Without ``normal`` an output to OFPP_NORMAL does nothing. Raises ValueError for an action that is not in SUPPORTED_ACTIONS:
    flow-mods with one are to be refused. Changes and counts nothing.
    """
    walk = _Walk(pipeline, key, normal)
    return walk.run(walk.tables)


def translate_actions(pipeline: Pipeline, key: int, actions: tuple[Action, ...], normal: Normal | None = None) -> Translation:
    """What a packet-out does: its actions, on a packet with this flow key (whose ``in_port`` is the packet-out's).

    Only here an output to OFPP_TABLE sends the packet into the pipeline. See ``Translation.also`` for actions that follow it.
    """
    table = next((at for at, action in enumerate(actions) if isinstance(action, Output) and action.port == PortNo.TABLE), None)
    walk = _Walk(pipeline, key, normal)
    walk.submit = table is not None
    walk.pending = actions[:table]
    translation = walk.run(walk.packet_out)
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
    walk.key = (key & ~_CARRIED) | again.carried
    walk.stage, walk.table_id, walk.entry = again.stage, again.table_id, again.entry
    walk.pending, walk.origin, walk.submit = again.pending, again.origin, again.submit
    if again.action_set:
        walk.action_set = ActionSet(again.action_set)
    go = {
        Stage.PACKET_OUT: walk.packet_out,
        Stage.LOOKUP: walk.tables,
        Stage.APPLY: walk.rest_of_entry,
        Stage.ACTION_SET: walk.finish,
    }[again.stage]
    return replace(walk.run(go), slow_path_only=True)


SUPPORTED_ACTIONS: frozenset[type[Action]] = frozenset({Output, SetField, PushVlan, PopVlan, SetNwTtl, DecNwTtl})
"""Actions that the pipeline can do. One truth for flow-mods, packet-outs and the feature replies."""
