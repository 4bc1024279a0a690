"""Meters: token buckets, and what becomes of packets that exceed them. The reference for ``bpf_prog/meter.h``.

A band's bucket is one number: the time at which it will be full again. A packet moves it on by what it costs; a packet that would
move it further ahead of now than the burst exceeds the band, and costs nothing. A full bucket lets any packet through, also one
that is larger than the burst: the next ones pay for it. Of the bands that a packet exceeds, the one with the highest rate has its
way. A remark raises the drop precedence of DSCP classes AF1x to AF4x and changes nothing else.

Invariant: ``TokenMeter.run`` and the fast path's ``meter_packets`` say the same of the same packets at the same times.
Source: OpenFlow 1.3.5, sections 5.7 and 7.3.4.5; RFC 2597.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.model.megaflow import MeterBand, MeterConfig, MeterCounters

METER_PASSES = 0
METER_DROPS = -1

RunMeter = Callable[[int, int], int]
"""Meters a packet: from the meter's id and the bytes of the frame as it is now to METER_PASSES, METER_DROPS, or the number above 0
by which to raise the drop precedence."""
MeterPackets = Callable[[int, int, int], int]
"""The same for several packets at once: from the meter's id, packets, and their bytes together."""

_SECOND = 1_000_000_000
_COST_SHIFT = 16
_KILOBIT_BYTES = 125
_DEFAULT_BURST = _SECOND
"""Nanoseconds at the band's rate, of a band that does not say (section 7.3.4.5 leaves it to the switch)."""
_MAX_PRECEDENCE = 3


def remarked_dscp(dscp: int, levels: int) -> int:
    """The DSCP with its drop precedence raised: only classes AF1x to AF4x have one."""
    af_class, precedence = dscp >> 3, dscp >> 1 & 3
    if dscp & 1 or not 1 <= af_class <= 4 or not precedence:
        return dscp
    return af_class << 3 | min(precedence + levels, _MAX_PRECEDENCE) << 1


class _Bucket:
    """The token bucket of one band. Times are in nanoseconds."""

    __slots__ = ("burst", "cost", "full_at")

    def __init__(self, band: MeterBand, in_packets: bool) -> None:
        unit = 1 if in_packets else _KILOBIT_BYTES
        rate = max(band.rate * unit, 1)  # packets or bytes a second
        self.cost = (_SECOND << _COST_SHIFT) // rate
        self.burst = band.burst * unit * _SECOND // rate if band.burst else _DEFAULT_BURST
        self.full_at = 0

    def take(self, amount: int, now: int) -> bool:
        """Take the tokens for so many packets or bytes; False if they are not there."""
        full_at = max(self.full_at, now) + (amount * self.cost >> _COST_SHIFT)
        if full_at > now + self.burst and self.full_at > now:
            return False
        self.full_at = full_at
        return True


class TokenMeter:
    """One meter at work."""

    __slots__ = ("_buckets", "_by_rate", "_bytes", "_counted", "_packets", "config")

    def __init__(self, config: MeterConfig) -> None:
        self._packets = self._bytes = 0
        self._counted: list[tuple[int, int]] = []
        self.configure(config)

    def configure(self, config: MeterConfig) -> None:
        """New bands, with full buckets. Counters stay: a band inherits what the one in its place has counted."""
        self.config = config
        self._counted = [*self._counted, *[(0, 0)] * len(config.bands)][: len(config.bands)]
        self._by_rate = sorted(range(len(config.bands)), key=lambda at: config.bands[at].rate)
        self._buckets = [_Bucket(band, config.in_packets) for band in config.bands]

    @property
    def counters(self) -> MeterCounters:
        return MeterCounters(self._packets, self._bytes, tuple(self._counted))

    def run(self, packets: int, octets: int, now: float) -> int:
        """Meter and count: METER_PASSES, METER_DROPS, or by how much to raise the packet's drop precedence."""
        self._packets += packets
        self._bytes += octets
        amount = packets if self.config.in_packets else octets
        nanoseconds = int(now * _SECOND)
        exceeded: int | None = None
        for at in self._by_rate:
            if not self._buckets[at].take(amount, nanoseconds):
                exceeded = at
        if exceeded is None:
            return METER_PASSES
        counted = self._counted[exceeded]
        self._counted[exceeded] = counted[0] + packets, counted[1] + octets
        level = self.config.bands[exceeded].prec_level
        return METER_DROPS if level is None else max(level, 1)
