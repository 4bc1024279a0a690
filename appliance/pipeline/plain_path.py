"""The short way through the tables, for packets that meet only entries which leave them as they are: most first packets do.

Such an entry writes metadata, goes to a table, and outputs to ports, at once or by the action set. Nothing but the look-ups then
depends on the packet, so that there is nothing to keep track of. For any other entry there is ``xlate``, from the beginning.

Invariant: what it returns is equal to what ``xlate.translate`` returns.
"""

from __future__ import annotations

from functools import lru_cache

from appliance.model.actions import Action, Output
from appliance.model.fields import IN_PORT, METADATA
from appliance.model.megaflow import DatapathAction, Flood, Forward
from appliance.model.ports import PortNo, is_port_number
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.translation import Lookup, Translation

_METADATA_BITS = METADATA.mask
_IN_PORT_BITS = IN_PORT.mask
_FLOODS = (PortNo.FLOOD, PortNo.ALL)


def translate(pipeline: Pipeline, key: int) -> Translation | None:
    """See ``xlate.translate``; None if the packet meets an entry that does more."""
    table_id = 0
    at = key & ~_METADATA_BITS
    mask = _IN_PORT_BITS
    in_port = IN_PORT.get(key)
    met: list[tuple[int, int, FlowEntry | None]] = []
    outputs: tuple[DatapathAction, ...] = ()
    in_set: Output | None = None
    while True:
        entry, consulted = pipeline.lookup(table_id, at, mask | _METADATA_BITS)
        mask |= consulted & ~_METADATA_BITS
        met.append((table_id, at, entry))
        if entry is None:
            break
        program = entry.program
        if program.meter_id is not None:
            return None
        for action in program.apply:
            output = _output(action, in_port)
            if output is None:
                return None
            outputs += output
        if program.clear:
            in_set = None
        for action in program.write:
            if not isinstance(action, Output) or _output(action, in_port) is None:
                return None
            in_set = action
        if program.metadata_mask:
            at = at & ~(program.metadata_mask << METADATA.shift) | program.metadata << METADATA.shift
        if program.goto is None:
            if in_set is not None:
                outputs += _output(in_set, in_port) or ()
            break
        table_id = program.goto
    known = mask | _METADATA_BITS
    lookups = tuple([Lookup(table_id, at, known, entry) for table_id, at, entry in met])
    return Translation(key, mask, outputs, lookups)


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
