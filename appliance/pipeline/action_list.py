"""The list of datapath actions that a translation makes, without the changes to the packet that nothing sees.

Invariant: every output, and every packet-in for a used-up TTL, has the same frame as if all actions were done one by one.
"""

from __future__ import annotations

from appliance.model.actions import SetField
from appliance.model.fields import VLAN_PCP, VLAN_VID
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PushTag

VLAN_FIELDS = frozenset({VLAN_VID.name, VLAN_PCP.name})
_OBSERVERS = frozenset({Forward, Flood, Controller, DecTtl})
"""Actions that see the packet as it is. Decrementing the TTL does: it may send the packet to the controller."""


def set_in_push(actions: list[DatapathAction], tci: int) -> bool:
    """If the outermost tag was pushed since the last output, let the push put ``tci`` there at once; else False."""
    for at in range(len(actions) - 1, -1, -1):
        action = actions[at]
        if isinstance(action, PushTag):
            actions[at] = PushTag(action.tpid, tci)
            return True
        if not isinstance(action, SetField):
            break
    return False


def needed(actions: list[DatapathAction], frame_needed: bool) -> tuple[DatapathAction, ...]:
    """Without those after the last output, and without a set-field that another one overtakes before the next output.

    The frame as it is in the end counts as seen if it is needed.
    """
    if not actions:
        return ()
    kept: list[DatapathAction] = []
    seen = frame_needed
    overtaken: set[str] = set()
    for action in reversed(actions):
        if type(action) in _OBSERVERS:
            seen = True
            overtaken.clear()
        elif not seen:
            continue
        elif isinstance(action, SetField):
            name = action.field.name
            if name in overtaken:
                continue
            overtaken.add(name)
        else:
            # A tag pushed or popped: what is set before it is set in another tag.
            overtaken -= VLAN_FIELDS
        kept.append(action)
    kept.reverse()
    return tuple(kept)
