"""The first part of a packet's way through the tables, where the rest is to be a megaflow of its own.

A way can be cut before a look-up if the packet gets there as it came in: by entries that write metadata and go to a table, and do
nothing else. What follows then depends on the packet, its port and the metadata alone.

Invariant: the first part, and what ``xlate.translate_again`` makes of its ``again``, together do what ``xlate.translate`` does.
"""

from __future__ import annotations

from appliance.model.fields import IN_PORT, METADATA
from appliance.model.megaflow import PacketInReason
from appliance.pipeline import plain_path
from appliance.pipeline.flow_table import Pipeline, Program
from appliance.pipeline.group_walk import MAX_COPIES
from appliance.pipeline.tracked_key import CARRIED_BITS
from appliance.pipeline.translation import Continuation, Origin, Stage, Translation

_NOTHING_YET = Origin(0, 0, PacketInReason.ACTION)
"""No entry has sent it anywhere."""


def first_part(pipeline: Pipeline, key: int, table_id: int) -> Translation | None:
    """As far as the look-up in this table, where it goes on (``again``); None if the packet does not come there so simply."""
    at = key & ~METADATA.mask
    mask = IN_PORT.mask
    met: list[plain_path.Met] = []
    here = 0
    while here != table_id:
        entry, consulted = pipeline.lookup(here, at, mask | METADATA.mask)
        if entry is None or not only_goes_on(entry.program):
            return None
        program = entry.program
        mask |= consulted & ~METADATA.mask
        met.append((here, at, entry))
        at = at & ~(program.metadata_mask << METADATA.shift) | program.metadata << METADATA.shift
        here = program.goto or 0
    if not met:
        return None
    again = Continuation(Stage.LOOKUP, table_id, None, (), (), _NOTHING_YET, at & CARRIED_BITS, False, None, MAX_COPIES)
    return plain_path.translation(key, mask, (), met)._replace(again=again)


def is_first_part(translation: Translation) -> bool:
    """Whether ``first_part`` made it: nothing in the packet keeps it from going on at once."""
    again = translation.again
    return again is not None and again.stage is Stage.LOOKUP and again.entry is None and not translation.actions


def only_goes_on(program: Program) -> bool:
    """Whether an entry leaves the packet and the action set, which is empty, as they are, and goes to another table."""
    return program.goto is not None and program.meter_id is None and not (program.apply or program.write)
