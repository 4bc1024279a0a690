"""Copies of a packet: what a group makes of each, put in one list of actions that the fast path can run.

The fast path has one packet, which an output does not change. A copy costs it nothing if all is undone exactly before anybody
looks at the packet again: nothing is changed (buckets that only output), nothing follows, a tag was pushed (it is popped), what was
set is set by those who come after, or what it was before can be known. Buckets of one group may run in any order: those that only
output go first, those that do the same share it, and one that cannot be undone goes last. What is left over is a ``Clone``, which
the slow path executes.

Checksums are the reason why few fields are set back: an update there and back does not always give the same bytes.

Invariant: as many frames leave as if each copy were one, with the same bytes, by the same ports; but not always in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from appliance.model.actions import SetField, SetQueue
from appliance.model.fields import ETH_DST, ETH_SRC, Field
from appliance.model.megaflow import Clone, Controller, DatapathAction, Flood, Forward, PopTag, PushTag
from appliance.model.tunnel import TUNNEL_FIELDS
from appliance.pipeline.action_list import CHANGES, QUEUE, VLAN_FIELDS, what_is_set
from appliance.pipeline.tracked_key import Snapshot

_OUTPUTS = frozenset({Forward, Flood, Controller})
_SET_BACK = VLAN_FIELDS | TUNNEL_FIELDS | {ETH_DST.name, ETH_SRC.name}
"""Worth having in the mask."""
_IN_NO_CHECKSUM = _SET_BACK | {"arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha", "ipv6_flabel"}


@dataclass(frozen=True, slots=True)
class Copy:
    """Actions on a copy of the packet. ``before`` and ``queue_id`` are of the packet."""

    actions: tuple[DatapathAction, ...]
    before: Snapshot
    queue_id: int | None


Step = DatapathAction | Copy
Recall = Callable[[Snapshot, int], None]
"""``TrackedKey.recall``."""


def merged(parts: Iterable[tuple[DatapathAction, ...]]) -> list[tuple[DatapathAction, ...]]:
    """What the buckets of an ALL group do, each to its own copy: fewer parts that together do the same, in a good order."""
    by_changes: dict[tuple[DatapathAction, ...], list[DatapathAction]] = {(): []}
    others: list[tuple[DatapathAction, ...]] = []
    for actions in parts:
        changes = tuple(takewhile(lambda action: type(action) in CHANGES, actions))
        outputs = actions[len(changes) :]
        if _only_outputs(outputs):
            by_changes.setdefault(changes, []).extend(outputs)
        else:
            others.append(actions)
    together = [(*changes, *outputs) for changes, outputs in by_changes.items() if outputs]
    return sorted([*together, *others], key=lambda actions: _changed(actions) is None)


def flat(steps: Sequence[Step], recall: Recall) -> list[DatapathAction]:
    """One list of actions that does the same. May make the megaflow depend on what has to be set back."""
    rest: deque[DatapathAction] = deque()
    only_outputs = True
    for step in reversed(steps):
        if not isinstance(step, Copy):
            rest.appendleft(step)
            only_outputs &= type(step) in _OUTPUTS
        elif _only_outputs(step.actions):
            rest.extendleft(reversed(step.actions))
        elif only_outputs:
            rest.extend(step.actions)
            only_outputs = False
        elif (undo := _undo(step, rest, recall)) is not None:
            rest.extendleft(reversed((*step.actions, *undo)))
        else:
            rest.appendleft(Clone(step.actions))
    return list(rest)


def cloned(steps: Iterable[Step]) -> list[DatapathAction]:
    """The same for a packet that is still needed as it is."""
    actions: list[DatapathAction] = []
    for step in steps:
        if not isinstance(step, Copy):
            actions.append(step)
        elif _only_outputs(step.actions):
            actions.extend(step.actions)
        else:
            actions.append(Clone(step.actions))
    return actions


def _only_outputs(actions: Iterable[DatapathAction]) -> bool:
    return all(type(action) in _OUTPUTS for action in actions)


def _changed(actions: Iterable[DatapathAction]) -> tuple[int, dict[str, Field | None]] | None:
    """How many tags they push, and what they set in the packet under those; None if they do what cannot be undone."""
    pushed = 0
    fields: dict[str, Field | None] = {}
    for action in actions:
        match action:
            case Forward() | Flood() | Controller():
                pass
            case PushTag():
                pushed += 1
            case PopTag() if pushed:
                pushed -= 1
            case SetField(field=field) if field.name in VLAN_FIELDS and pushed:
                pass
            case SetField(field=field) if field.name in _IN_NO_CHECKSUM:
                fields[field.name] = field
            case SetQueue():
                fields[QUEUE] = None
            case _:
                return None
    return pushed, fields


def _undo(copy: Copy, rest: Iterable[DatapathAction], recall: Recall) -> tuple[DatapathAction, ...] | None:
    """Actions that make the packet what it was before, as far as ``rest`` can tell."""
    change = _changed(copy.actions)
    if change is None:
        return None
    pushed, fields = change
    undo: list[DatapathAction] = [PopTag()] * pushed
    overtaken = _set_at_once(rest)
    for name, field in fields.items():
        if name in overtaken:
            continue
        if field is None:
            if copy.queue_id is None:
                return None
            undo.append(SetQueue(copy.queue_id))
        elif name in _SET_BACK:
            # It was not stale: then it could not have been set.
            recall(copy.before, field.mask)
            undo.append(SetField(field, field.get(copy.before.key)))
        else:
            return None
    return tuple(undo)


def _set_at_once(actions: Iterable[DatapathAction]) -> set[str]:
    """The fields that they set before anything sees the packet."""
    names: set[str] = set()
    tags_moved = False
    for action in actions:
        name = what_is_set(action)
        if name is None:
            if not isinstance(action, PushTag | PopTag):
                break
            tags_moved = True
        elif not tags_moved or name not in VLAN_FIELDS:
            names.add(name)
    return names
