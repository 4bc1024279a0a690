"""What entries do to the packets that go no further, remembered by the bits of those that decide.

Most entries that change packets are the last that these meet: a router's, which writes addresses and takes from the TTL. What such
an entry does depends on its instructions, the packet's port, and the bits that its actions ask for: a few header bits, or a tag. So
the actions are followed once for all packets that agree in those.

Invariant: what is remembered for a packet is what following the actions would give.
"""

from __future__ import annotations

from appliance.model.actions import Action, DecNwTtl, Output, PopVlan, PushVlan, SetField, SetNwTtl
from appliance.model.megaflow import DatapathAction
from appliance.pipeline.flow_table import Program
from appliance.pipeline.plain_path import Begun, only_outputs

Outcome = tuple[int, tuple[DatapathAction, ...]]
"""The bits of the packet that it depends on besides its port, and the actions."""

_CHANGES: frozenset[type[Action]] = frozenset({SetField, PushVlan, PopVlan, SetNwTtl, DecNwTtl})
_MAX_ENTRIES = 4096
_MAX_OUTCOMES = 64
"""Of one entry: those of packets with ever other tags, for example, are not worth it."""

_Where = tuple[int, int, Output | None]
"""A program's identity, the packet's port, and what is in the action set before."""


class _Outcomes:
    __slots__ = ("by_mask", "count", "program")

    def __init__(self, program: Program) -> None:
        self.program = program
        """Lives as long as its identity is in use here."""
        self.by_mask: dict[int, dict[int, tuple[DatapathAction, ...]]] = {}
        self.count = 0


class LastEntries:
    """Bounded, whatever packets come."""

    def __init__(self) -> None:
        self._outcomes: dict[_Where, _Outcomes] = {}

    def find(self, begun: Begun, in_port: int, key: int) -> Outcome | None:
        """What is known of a packet with this key."""
        known = self._outcomes.get(_where(begun, in_port))
        if known is not None:
            for mask, outcomes in known.by_mask.items():
                actions = outcomes.get(key & mask)
                if actions is not None:
                    return mask, actions
        return None

    def learn(self, begun: Begun, in_port: int, key: int, outcome: Outcome) -> None:
        """That of one whose entry ``is_last``, followed from there and with nothing known but the port."""
        where = _where(begun, in_port)
        known = self._outcomes.get(where)
        if known is None or known.count >= _MAX_OUTCOMES:
            if len(self._outcomes) >= _MAX_ENTRIES:
                self._outcomes.clear()
            known = self._outcomes[where] = _Outcomes(begun.entry.program)
        mask, actions = outcome
        known.by_mask.setdefault(mask, {})[key & mask] = actions
        known.count += 1


def is_last(program: Program) -> bool:
    """Whether packets go no further, and nothing but the packet decides what becomes of them."""
    return (
        program.goto is None
        and program.meter_id is None
        and all(type(action) in _CHANGES or only_outputs(action) for action in program.apply)
        and all(only_outputs(action) for action in program.write)
    )


def _where(begun: Begun, in_port: int) -> _Where:
    return id(begun.entry.program), in_port, None if begun.in_set is None else begun.in_set[0]
