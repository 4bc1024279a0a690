"""What a meter does to a packet, once it has judged it. ``bpf_prog/meter.h`` follows the same rules.

Invariant: a remark changes the drop precedence of DSCP classes AF1x to AF4x, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

METER_PASSES = 0
METER_DROPS = -1

RunMeter = Callable[[int, int], int]
"""Meters a packet: from the meter's id and the bytes of the frame as it is now to METER_PASSES, METER_DROPS, or the number above 0
by which to raise the drop precedence."""

_MAX_PRECEDENCE = 3


def remarked_dscp(dscp: int, levels: int) -> int:
    """The DSCP with its drop precedence raised (section 7.3.4.5; RFC 2597): only classes AF1x to AF4x have one."""
    af_class, precedence = dscp >> 3, dscp >> 1 & 3
    if dscp & 1 or not 1 <= af_class <= 4 or not precedence:
        return dscp
    return af_class << 3 | min(precedence + levels, _MAX_PRECEDENCE) << 1
