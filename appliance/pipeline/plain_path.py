"""The short way through the tables, as far as a packet meets entries which leave it as it is: for most first packets to the end.

Such an entry writes metadata, goes to a table, and outputs to ports, at once or by the action set. Nothing but the look-ups then
depends on the packet, so that there is nothing to keep track of. At any other entry ``xlate`` takes over.

Invariant: what is translated this way is equal to what ``xlate`` would make of it step by step.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from appliance.model.actions import Action, Output
from appliance.model.fields import IN_PORT, KEY_MASK, METADATA
from appliance.model.megaflow import DatapathAction, Flood, Forward
from appliance.model.ports import PortNo, is_port_number
from appliance.pipeline.flow_table import FlowEntry, Pipeline, Program
from appliance.pipeline.translation import Lookup, Translation

_METADATA_BITS = METADATA.mask
_NO_METADATA = KEY_MASK & ~_METADATA_BITS
_KNOWN_FIRST = _METADATA_BITS | IN_PORT.mask
_IN_PORT_SHIFT = IN_PORT.shift
_IN_PORT_ONES = IN_PORT.mask >> _IN_PORT_SHIFT
_FLOODS = (PortNo.FLOOD, PortNo.ALL)
_new = tuple.__new__
_NOTHING_ELSE = Translation(0, 0, ())[4:]


Met = tuple[int, int, FlowEntry | None]
"""Table, key and outcome of a look-up."""


class Begun(NamedTuple):
    """A packet that has met ``entry``, the first that may do more, and so far nothing of it."""

    entry: FlowEntry
    key: int
    """With metadata."""
    mask: int
    met: tuple[Met, ...]
    """The last of them found ``entry``."""
    outputs: tuple[DatapathAction, ...]
    in_set: tuple[Output, int, FlowEntry] | None
    """The action set: an output, with the table and the entry that wrote it."""


def begin(pipeline: Pipeline, key: int) -> Translation | Begun:
    """The whole translation, or how far it came. See ``xlate.translate``."""
    table_id = 0
    at = key & _NO_METADATA
    known = _KNOWN_FIRST
    in_port = key >> _IN_PORT_SHIFT & _IN_PORT_ONES
    met: list[Met] = []
    outputs: tuple[DatapathAction, ...] = ()
    in_set: tuple[Output, int, FlowEntry] | None = None
    lookups = pipeline.lookups
    while True:
        look_up = lookups.get(table_id)
        entry, consulted = (None, 0) if look_up is None else look_up(at, known)
        known |= consulted
        met.append((table_id, at, entry))
        if entry is None:
            break
        program = entry.program
        _, applied, clear, written, kept, metadata, goto = _STEPS.get((id(program), in_port)) or _step(program, in_port)
        if applied is None:
            return Begun(entry, at, known & _NO_METADATA, tuple(met), outputs, in_set)
        if applied:
            outputs += applied
        if clear:
            in_set = None
        if written is not None:
            in_set = written, table_id, entry
        if kept:
            at = at & kept | metadata
        if goto is None:
            if in_set is not None:
                outputs += _output(in_set[0], in_port) or ()
            break
        table_id = goto
    return _translation(key, known, outputs, met)


def translation(key: int, mask: int, actions: tuple[DatapathAction, ...], met: Iterable[Met]) -> Translation:
    """That of a packet which nothing was done to between its look-ups."""
    return _translation(key, mask | _METADATA_BITS, actions, met)


def _translation(key: int, known: int, actions: tuple[DatapathAction, ...], met: Iterable[Met]) -> Translation:
    # Without the named tuples' own ``__new__``, which are functions of Python's.
    lookups = []
    for table_id, at, entry in met:
        lookups.append(_new(Lookup, (table_id, at, known, entry)))
    return _new(Translation, (key, known & _NO_METADATA, actions, tuple(lookups), *_NOTHING_ELSE))


def only_outputs(action: Action) -> bool:
    """Whether it leaves the packet as it is."""
    return _output(action, 0) is not None


_Step = tuple[Program, tuple[DatapathAction, ...] | None, bool, Output | None, int, int, int | None]
"""What an entry does to a packet of one port: its program, which lives as long as its identity is in use here; what it does at
once, None if that or its part of the action set is more than outputs; whether it clears the action set; what it writes to that; the
bits of the key that it keeps, 0 if it keeps all, and those that it sets; the next table."""
_STEPS: dict[tuple[int, int], _Step] = {}
"""Those worked out lately, by the identity of the program and the port."""
_MAX_STEPS = 4096


def _step(program: Program, in_port: int) -> _Step:
    if len(_STEPS) >= _MAX_STEPS:
        _STEPS.clear()
    written = [action for action in program.write if isinstance(action, Output)]
    bits = program.metadata_mask << METADATA.shift
    step = _STEPS[id(program), in_port] = (
        program,
        _outputs(program, in_port),
        program.clear,
        written[-1] if written else None,
        KEY_MASK & ~bits if bits else 0,
        program.metadata << METADATA.shift,
        program.goto,
    )
    return step


def _outputs(program: Program, in_port: int) -> tuple[DatapathAction, ...] | None:
    if program.meter_id is not None:
        return None
    outputs: tuple[DatapathAction, ...] = ()
    for action in program.apply:
        output = _output(action, in_port)
        if output is None:
            return None
        outputs += output
    for action in program.write:
        if _output(action, in_port) is None:
            return None
    return outputs


@lru_cache(maxsize=4096)
def _output(action: Action, in_port: int) -> tuple[DatapathAction, ...] | None:
    """What comes of an action that leaves the packet as it is; None if this is none."""
    if not isinstance(action, Output):
        return None
    port = action.port
    if is_port_number(port):
        return () if port == in_port else (Forward(port),)
    if port in _FLOODS:
        return (Flood(),)
    if port == PortNo.IN_PORT:
        return (Forward(in_port),) if is_port_number(in_port) else ()
    return None
