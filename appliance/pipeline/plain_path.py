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
from appliance.model.fields import IN_PORT, METADATA
from appliance.model.megaflow import DatapathAction, Flood, Forward
from appliance.model.ports import PortNo, is_port_number
from appliance.pipeline.flow_table import FlowEntry, Pipeline, Program
from appliance.pipeline.translation import Lookup, Translation

_METADATA_BITS = METADATA.mask
_IN_PORT_BITS = IN_PORT.mask
_FLOODS = (PortNo.FLOOD, PortNo.ALL)


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
    at = key & ~_METADATA_BITS
    mask = _IN_PORT_BITS
    in_port = IN_PORT.get(key)
    met: list[Met] = []
    outputs: tuple[DatapathAction, ...] = ()
    in_set: tuple[Output, int, FlowEntry] | None = None
    while True:
        entry, consulted = pipeline.lookup(table_id, at, mask | _METADATA_BITS)
        mask |= consulted & ~_METADATA_BITS
        met.append((table_id, at, entry))
        if entry is None:
            break
        program = entry.program
        applied = _outputs(program, in_port)
        if applied is None:
            return Begun(entry, at, mask, tuple(met), outputs, in_set)
        outputs += applied
        if program.clear:
            in_set = None
        for action in program.write:
            if isinstance(action, Output):
                in_set = action, table_id, entry
        if program.metadata_mask:
            at = at & ~(program.metadata_mask << METADATA.shift) | program.metadata << METADATA.shift
        if program.goto is None:
            if in_set is not None:
                outputs += _output(in_set[0], in_port) or ()
            break
        table_id = program.goto
    return translation(key, mask, outputs, met)


def translation(key: int, mask: int, actions: tuple[DatapathAction, ...], met: Iterable[Met]) -> Translation:
    """That of a packet which nothing was done to between its look-ups."""
    known = mask | _METADATA_BITS
    return Translation(key, mask, actions, tuple([Lookup(table_id, at, known, entry) for table_id, at, entry in met]))


def only_outputs(action: Action) -> bool:
    """Whether it leaves the packet as it is."""
    return _output(action, 0) is not None


def _outputs(program: Program, in_port: int) -> tuple[DatapathAction, ...] | None:
    """What an entry does to the packet at once; None if it or its part of the action set is more than outputs."""
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
