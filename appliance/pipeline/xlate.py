"""Translation: one packet's way through the flow tables, turned into datapath actions for all packets like it.

The packet's flow key goes through the tables as section 5 of the specification (1.3.5) says; each bit of the packet that a
decision depends on is noted in the megaflow's mask (``tracked_key``). Actions change the key too, so later tables see what they
should (``action_walk``); groups make copies of it (``group_walk``). Where something depends on headers that an action brought to
light, the translation ends with ``Translation.again`` or ``forks``, and goes on by ``resume`` when the rewritten frame has been
parsed. Such a translation must not become a megaflow.

Invariant: translating a key that differs only in bits outside ``Translation.mask`` takes the same steps and gives the same actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from appliance.model.actions import Action, ExperimenterAction, Group, Meter, Output, SetQueue
from appliance.model.fields import BY_NAME, IN_PORT
from appliance.model.megaflow import MAX_LEADING_METERS, CallPlugin, DatapathAction, PacketInReason
from appliance.model.plugin import EXPERIMENTER_ID, call_of
from appliance.model.ports import PortNo
from appliance.pipeline import plain_path
from appliance.pipeline.action_list import leading_meters, meters_first, needed
from appliance.pipeline.action_set import ActionSet
from appliance.pipeline.action_walk import SUPPORTED_ACTIONS, Normal, StopError
from appliance.pipeline.copies import Copy, Step, cloned, flat
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import PortIsLive
from appliance.pipeline.group_walk import ForkError, GroupWalk
from appliance.pipeline.last_entry import LastEntries, is_last
from appliance.pipeline.plain_path import Begun, begin
from appliance.pipeline.tracked_key import (
    CARRIED_BITS,
    DSCP_BITS,
    METADATA_BITS,
    ParseAgainError,
    Snapshot,
    TrackedKey,
    before_actions,
)
from appliance.pipeline.translation import Continuation, Lookup, Met, Origin, Stage, Translation

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
    "translate_again",
]

NO_COOKIE = 0xFFFFFFFFFFFFFFFF
"""The cookie in a packet-in that a packet-out's own actions caused: no flow entry did."""

_LAST_ENTRIES = LastEntries()
_PACKET_OUT = Origin(0, NO_COOKIE, PacketInReason.ACTION)


class _Walk(GroupWalk):
    """One packet on its way. ``run`` takes the method to start with."""

    __slots__ = (
        "_action_set",
        "_done",
        "_entry",
        "_lookups",
        "_met",
        "_meters",
        "_pending",
        "_set_items",
        "_stage",
        "_submit",
        "_table_id",
    )

    def __init__(
        self, pipeline: Pipeline, key: int, normal: Normal | None, port_is_live: PortIsLive | None, *, one_packet: bool
    ) -> None:
        super().__init__(pipeline, key, normal, port_is_live, _PACKET_OUT)
        self._one_packet = one_packet
        self._lookups: list[tuple[int, FlowEntry | None, Snapshot]] = []
        self._meters: set[int] = set()
        self._met: list[Met] = []
        # Where it is, for a continuation.
        self._stage = Stage.LOOKUP
        self._table_id = 0
        self._entry: FlowEntry | None = None
        self._pending: tuple[Action, ...] = ()
        self._done = 0
        self._action_set: ActionSet | None = None
        self._set_items: list[tuple[Action, Origin]] = []
        self._submit = False

    def run(self, go: Callable[[], None]) -> Translation:
        again: Continuation | None = None
        forks: tuple[Continuation, ...] = ()
        try:
            go()
        except StopError:
            pass
        except ParseAgainError:
            again = self._rest(self._done)
        except ForkError as fork:
            forks = fork.forks
            again = self._rest(self._done + 1)
        key = self._key
        ends = again is None and not forks
        actions = meters_first(_in_one_list(self._out, key, ends=ends))
        return Translation(
            key.packet,
            key.mask,
            actions,
            tuple([Lookup(table_id, then.key, key.known(then), entry) for table_id, entry, then in self._lookups]),
            tuple(self._normal_keys),
            bool(forks) or self._too_many_ways or _too_many_meters(actions),
            again,
            (),
            forks,
            tuple(self._hits),
            self._way_hits,
            tuple(self._met),
            frozenset(self._groups),
            frozenset(self._meters),
            frozenset(self._watched_ports),
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
            if not self._instructions(entry):
                break
        self._run_action_set()

    def go_on(self, begun: Begun) -> None:
        """From where the short way ends."""
        self._key.begin(begun.key, begun.mask)
        self._lookups = [(table_id, entry, before_actions(key)) for table_id, key, entry in begun.met]
        self._table_id = begun.met[-1][0]
        self._out = list(begun.outputs)
        if begun.in_set is not None:
            output, table_id, entry = begun.in_set
            self._action_set = ActionSet([(output, _origin(table_id, entry))])
        if self._instructions(begun.entry):
            self.tables()
        else:
            self._run_action_set()

    def resume(self, again: Continuation) -> None:
        self._key = TrackedKey(self._key.packet, again.carried)
        self._stage, self._table_id, self._origin = again.stage, again.table_id, again.origin
        self._copies_left = again.copies
        if again.queue_id is not None:
            self._do(SetQueue(again.queue_id))
        self._entry = entry = again.entry
        if again.action_set:
            self._action_set = ActionSet(again.action_set)
        if self._stage is Stage.PACKET_OUT:
            self.packet_out(again.pending, again.submit)
        elif self._stage is Stage.LOOKUP:
            self.tables()
        elif self._stage is Stage.BUCKET:
            self._run(again.pending)
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
        entry, consulted = self._pipeline.lookup(self._table_id, *key.to_look_up())
        key.need(consulted)
        self._lookups.append((self._table_id, entry, key.snapshot()))
        return entry

    def _instructions(self, entry: FlowEntry) -> bool:
        """Those of an entry that was found; whether there is a next table."""
        self._entry = entry
        self._origin = _origin(self._table_id, entry)
        self._stage = Stage.APPLY
        program = entry.program
        if program.meter_id is not None:
            self._meter(program.meter_id)
        self._run(program.apply)
        return self._after_apply(entry)

    def _meter(self, meter_id: int) -> None:
        self._meters.add(meter_id)
        meter = self._pipeline.meters.get(meter_id)
        if meter is not None:
            self._out.append(Meter(meter_id))
            self._met.append(Met(len(self._lookups), len(self._hits)))
            if meter.remarks:
                self._key.changed(DSCP_BITS)

    def _call_plugin(self, action: ExperimenterAction) -> None:
        if action.experimenter != EXPERIMENTER_ID:
            raise ValueError(f"the pipeline has no action {action}")
        plugin_id, arguments = call_of(action.data)
        self._out.append(CallPlugin(plugin_id, arguments))
        if not self._depth:
            self._met.append(Met(len(self._lookups), len(self._hits)))
        plugin = self._pipeline.plugins.get(plugin_id)
        if plugin is not None and plugin.action is not None:
            for name in plugin.action.writes:
                self._key.changed(BY_NAME[name].mask)

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

    def _rest(self, done: int) -> Continuation | None:
        """How to go on behind the first ``done`` actions of the list at hand; None if there is nothing to go on with."""
        pending = () if self._stage in (Stage.LOOKUP, Stage.ACTION_SET) else self._pending[done:]
        if self._stage is Stage.ACTION_SET:
            items = tuple(self._set_items[done:])
        else:
            items = () if self._action_set is None else self._action_set.items()
        if not pending and not items and self._stage in (Stage.ACTION_SET, Stage.BUCKET):
            return None
        carried = self._key.key & CARRIED_BITS
        return Continuation(
            self._stage,
            self._table_id,
            self._entry,
            pending,
            items,
            self._origin,
            carried,
            self._submit,
            self._queue_id,
            self._copies_left,
        )


def _origin(table_id: int, entry: FlowEntry) -> Origin:
    return Origin(table_id, entry.cookie, PacketInReason.NO_MATCH if entry.is_table_miss else PacketInReason.ACTION)


def _in_one_list(out: list[Step], key: TrackedKey, *, ends: bool) -> tuple[DatapathAction, ...]:
    """What was done to the packet and its copies; ``ends``: the frame is not needed any more."""
    steps = needed(out, frame_needed=not ends)
    alone = tuple([step for step in steps if not isinstance(step, Copy)])
    if len(alone) == len(steps):
        return alone
    return needed(flat(steps, key.recall) if ends else cloned(steps), frame_needed=not ends)


def _too_many_meters(actions: tuple[DatapathAction, ...]) -> bool:
    """Whether the fast path would not run them all, so that nobody knew which it had run."""
    return leading_meters(actions) > MAX_LEADING_METERS


def translate(
    pipeline: Pipeline,
    key: int,
    normal: Normal | None = None,
    port_is_live: PortIsLive | None = None,
    *,
    one_packet: bool = False,
    begun: Translation | Begun | None = None,
) -> Translation:
    """What the tables do with a packet that came in, from table 0 on. ``begun``: what ``plain_path.begin`` says of it, if that is
    known.

    ``one_packet``: it is for this packet only (``slow_path_only``). It then ends where the packet's TTL is used up, and has no
    lookups and hits of what it would have met behind that.

    Without ``normal`` an output to OFPP_NORMAL does nothing; without ``port_is_live`` all ports are. Raises ValueError for an
    action that is not in SUPPORTED_ACTIONS. Changes and counts nothing.
    """
    if begun is None:
        begun = begin(pipeline, key)
    translation: Translation | None
    if not isinstance(begun, Begun):
        translation = begun
    else:
        translation = None if one_packet else _by_last_entry(pipeline, key, begun)
        if translation is None:
            walk = _Walk(pipeline, key, normal, port_is_live, one_packet=one_packet)
            translation = walk.run(lambda: walk.go_on(begun))
    return translation._replace(slow_path_only=True) if one_packet else translation


def _by_last_entry(pipeline: Pipeline, key: int, begun: Begun) -> Translation | None:
    """The translation if the packet goes no further than it has come; None if that is not so simple."""
    in_port = IN_PORT.get(key)
    outcome = _LAST_ENTRIES.find(begun, in_port, key)
    if outcome is None:
        if not is_last(begun.entry.program):
            return None
        walk = _Walk(pipeline, key, None, None, one_packet=False)
        alone = walk.run(lambda: walk.go_on(begun._replace(mask=IN_PORT.mask, outputs=())))
        if alone.slow_path_only or alone.again is not None:
            return None
        outcome = alone.mask, alone.actions
        _LAST_ENTRIES.learn(begun, in_port, key, outcome)
    mask, actions = outcome
    return plain_path.translation(key, begun.mask | mask, begun.outputs + actions, begun.met)


def translate_actions(
    pipeline: Pipeline,
    key: int,
    actions: tuple[Action, ...],
    normal: Normal | None = None,
    port_is_live: PortIsLive | None = None,
) -> Translation:
    """What a packet-out does: its actions, on the packet with this flow key (whose ``in_port`` is the packet-out's).

    Only here an output to OFPP_TABLE sends the packet into the pipeline. See ``Translation.also`` for actions that follow it.
    """
    table = next((at for at, action in enumerate(actions) if isinstance(action, Output) and action.port == PortNo.TABLE), None)
    walk = _Walk(pipeline, key, normal, port_is_live, one_packet=True)
    translation = walk.run(lambda: walk.packet_out(actions[:table], table is not None))
    if table is None or not any(isinstance(action, Output | Group) for action in actions[table + 1 :]):
        return translation
    changes = tuple(action for action in actions[:table] if not isinstance(action, Output | Group))
    rest = translate_actions(pipeline, key, changes + actions[table + 1 :], normal, port_is_live)
    return translation._replace(also=(rest._replace(also=()), *rest.also))


def translate_again(
    pipeline: Pipeline,
    again: Continuation,
    key: int,
    normal: Normal | None = None,
    port_is_live: PortIsLive | None = None,
    *,
    one_packet: bool = False,
) -> Translation:
    """What becomes of all packets that go on so and have this key when they are parsed again; the tunnel is the key's own.

    ``one_packet`` as in ``translate``.
    """
    walk = _Walk(pipeline, key, normal, port_is_live, one_packet=one_packet)
    carried = again.carried | key & CARRIED_BITS & ~METADATA_BITS
    translation = walk.run(lambda: walk.resume(replace(again, carried=carried)))
    return translation._replace(slow_path_only=True) if one_packet else translation


def resume(
    pipeline: Pipeline, again: Continuation, key: int, normal: Normal | None = None, port_is_live: PortIsLive | None = None
) -> Translation:
    """Go on where a translation needed its rewritten frame parsed again; ``key`` is that frame's, with the same ``in_port``.

    The result is for this packet only (``slow_path_only``), and may need another parse itself.
    """
    walk = _Walk(pipeline, key, normal, port_is_live, one_packet=True)
    return walk.run(lambda: walk.resume(again))._replace(slow_path_only=True)
