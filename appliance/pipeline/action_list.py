"""The list of datapath actions that a translation makes, without the changes to the packet that nothing sees.

Invariant: outputs, meters and packet-ins for used-up TTLs have the same frames as if all actions were done one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, Meter, PopMpls, PopPbb, PushMpls, PushPbb, SetField, SetQueue
from appliance.model.fields import ETH_TYPE, IP_TTL, LAYERS, MPLS_TTL, VLAN_PCP, VLAN_VID, Layer
from appliance.model.megaflow import Clone, DatapathAction, DecTtl, Failover, PopTag, PushTag, Select

VLAN_FIELDS = frozenset({VLAN_VID.name, VLAN_PCP.name})
QUEUE = "queue"
"""Stands among names of fields for the queue, which a packet has too."""

_TAG_CHANGES = frozenset({PushTag, PopTag})
_HEADER_CHANGES = frozenset({PushMpls, PopMpls, PushPbb, PopPbb, CopyTtlOut, CopyTtlIn})
CHANGES = frozenset({SetField, SetQueue}) | _TAG_CHANGES | _HEADER_CHANGES
"""Actions that only change the packet. All others see it as it is: decrementing a TTL may send it to the controller."""

_BEFORE_METERS = frozenset({"ip_dscp", ETH_TYPE.name})
"""Fields that a meter's remark changes or depends on."""

_DECREMENTS = frozenset({DecTtl, DecMplsTtl})
_OTHER_TTLS = frozenset({CopyTtlIn, CopyTtlOut, PopMpls, PopPbb})
"""Actions behind which another TTL is decremented than the one in the packet's key."""

_A = TypeVar("_A")


def set_in_push(actions: list[_A | DatapathAction], tci: int) -> bool:
    """If the outermost tag was pushed since the last output, let the push put ``tci`` there at once; else False."""
    for at in range(len(actions) - 1, -1, -1):
        action = actions[at]
        if isinstance(action, PushTag):
            actions[at] = PushTag(action.tpid, tci)
            return True
        if not isinstance(action, SetField):
            break
    return False


def what_is_set(action: object) -> str | None:
    """The name of the field that the action sets, if it does only that."""
    if isinstance(action, SetField):
        return action.field.name
    return QUEUE if isinstance(action, SetQueue) else None


def needed(actions: Sequence[_A], frame_needed: bool) -> tuple[_A, ...]:
    """Without changes that nothing sees, and without a set-field that another one overtakes before anything sees it.

    The frame as it is in the end counts as seen if it is needed.
    """
    if not actions:
        return ()
    kept: list[_A] = []
    seen = frame_needed
    overtaken: set[str] = set()
    for action in reversed(actions):
        kind = type(action)
        if kind not in CHANGES:
            seen = True
            overtaken.clear()
        elif not seen:
            continue
        elif name := what_is_set(action):
            if name in overtaken:
                continue
            overtaken.add(name)
        elif kind in _TAG_CHANGES:
            # What is set before it is set in another tag.
            overtaken -= VLAN_FIELDS
        else:
            overtaken.clear()
        kept.append(action)
    kept.reverse()
    return tuple(kept)


def leading_meters(actions: Iterable[DatapathAction]) -> int:
    """How many meters stand before everything else: those that the fast path runs."""
    count = 0
    for action in actions:
        if not isinstance(action, Meter):
            break
        count += 1
    return count


def may_run_out(actions: Iterable[DatapathAction], key: int) -> bool:
    """Whether these actions may use up a TTL of the packet with this flow key."""
    kinds = list(_kinds(actions))
    decrements = sum(kind in _DECREMENTS for kind in kinds)
    if not decrements:
        return False
    layers = LAYERS.get(key)
    ttl = MPLS_TTL.get(key) if layers & Layer.MPLS else IP_TTL.get(key) if layers & Layer.IP else 0
    # The key shows the outermost one only.
    return ttl <= decrements or not _OTHER_TTLS.isdisjoint(kinds)


def _kinds(actions: Iterable[DatapathAction]) -> Iterator[type[DatapathAction]]:
    for action in actions:
        yield type(action)
        match action:
            case Clone(actions=copied):
                yield from _kinds(copied)
            case Select(ways=ways) | Failover(ways=ways):
                for way in ways:
                    yield from _kinds(way.actions)


def meters_first(actions: tuple[DatapathAction, ...]) -> tuple[DatapathAction, ...]:
    """With meters before set-fields that make no difference to them: the fast path runs those that stand before everything else."""
    if not any(isinstance(action, Meter) for action in actions):
        return actions
    leading: list[DatapathAction] = []
    behind: list[DatapathAction] = []
    for at, action in enumerate(actions):
        if isinstance(action, Meter):
            leading.append(action)
        elif isinstance(action, SetField) and action.field.name not in _BEFORE_METERS:
            behind.append(action)
        else:
            return (*leading, *behind, *actions[at:])
    return (*leading, *behind)
