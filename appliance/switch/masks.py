"""How many different masks the live megaflows have: a fast path looks for a packet once under each, so there must not be many.

A megaflow may have more bits in its mask than it needs: it is then for fewer packets. Whoever sends packets made to meet ever other
combinations of rules would have a mask made for each (tuple-space explosion). So once there are ``limit`` masks, a new megaflow
gets one that there is already, the widest of those that have all of its bits; if there is none, FLOW, which has what connections
differ in, or EXACT. Megaflows under those are for single connections or packets, but cost the others nothing; and they are made for
those that come again only (``Megaflows.earned``).

Invariant: a mask is only ever exchanged for a finer one.
"""

from __future__ import annotations

from appliance.model.fields import BY_NAME, KEY_MASK, METADATA

MAX_MASKS = 96
"""Besides FLOW and EXACT."""

_VARYING = ("tcp_flags", "ip_ttl", "ip_ecn", "mpls_ttl")
"""Fields that differ between packets of one connection."""

EXACT = KEY_MASK & ~METADATA.mask
FLOW = EXACT & ~sum(BY_NAME[name].mask for name in _VARYING)
_ALWAYS = (FLOW, EXACT)
"""These can be had when there are ``limit`` masks."""


class Masks:
    """The masks in use, by ``take`` and ``release``."""

    __slots__ = ("_finer", "_lacking", "_used", "limit")

    def __init__(self, limit: int = MAX_MASKS) -> None:
        self.limit = limit
        self._used: dict[int, int] = {}
        """How many megaflows have each."""
        self._lacking = {mask: ~mask for mask in _ALWAYS}
        """What each mask that can be chosen has not."""
        self._finer: dict[int, int] = {}
        """What ``choose`` found while there were these masks."""

    def __len__(self) -> int:
        return len(self._used)

    def choose(self, mask: int) -> int:
        """The mask for a megaflow that needs this one."""
        if mask in self._used or len(self._used) < self.limit:
            return mask
        finer = self._finer.get(mask)
        if finer is None:
            fitting = [other for other, lacking in self._lacking.items() if not mask & lacking]
            finer = self._finer[mask] = min(fitting, key=int.bit_count)
        return finer

    def take(self, mask: int) -> None:
        """A megaflow has it."""
        count = self._used.get(mask, 0)
        self._used[mask] = count + 1
        if not count:
            self._lacking[mask] = ~mask
            self._finer.clear()

    def release(self, mask: int) -> None:
        """That megaflow is gone."""
        self._used[mask] -= 1
        if not self._used[mask]:
            del self._used[mask]
            if mask not in _ALWAYS:
                del self._lacking[mask]
            self._finer.clear()
