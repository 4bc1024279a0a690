"""Meter entries, their token buckets, and the meter table (specification 1.3.5, section 5.7).

The fast path has meters of its own (``bpf_prog/meter.h``), told by ``MeterEntry.config``; what counts here is what the slow path
metered. A band's bucket is one number, as there: the time at which it will be full again. A packet moves it on by what it costs;
a packet that would move it further ahead of now than the burst exceeds the band, and costs nothing. A full bucket lets any packet
through, also one that is larger than the burst: the next ones pay for it. Of the bands that a packet exceeds, the one with the
highest rate has its way.

Invariant: ``MeterEntry.run`` and the fast path's ``run_meter`` say the same of the same packets at the same times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import IntFlag

from appliance.model.megaflow import MeterBand, MeterConfig, MeterCounters
from appliance.packet.meter import METER_DROPS, METER_PASSES

OFPM_MAX = 0xFFFF0000
OFPM_ALL = 0xFFFFFFFF

_SECOND = 1_000_000_000
_COST_SHIFT = 16
_KILOBIT_BYTES = 125
_DEFAULT_BURST = _SECOND
"""Nanoseconds at the band's rate, of a band that does not say (section 7.3.4.5 leaves it to the switch)."""


class MeterFlags(IntFlag):
    """OFPMF_*."""

    NONE = 0
    KBPS = 1 << 0
    PKTPS = 1 << 1
    BURST = 1 << 2
    STATS = 1 << 3


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


class MeterEntry:
    """One meter. Compared and hashed by identity; a modified meter is the same one, and its counters stay.

    ``bands`` are as the controller sent them, in its order; ``flags`` say whether their rates are packets or kilobits, and whether
    their bursts count.
    """

    __slots__ = ("_buckets", "_by_rate", "_counted", "bands", "byte_in_count", "created_at", "flags", "meter_id", "packet_in_count")

    def __init__(self, meter_id: int, flags: int, bands: Sequence[MeterBand], *, created_at: float = 0.0) -> None:
        self.meter_id = meter_id
        self.created_at = created_at
        self.packet_in_count = 0
        self.byte_in_count = 0
        self._counted: list[tuple[int, int]] = []
        self.modify(flags, bands)

    def __repr__(self) -> str:
        return f"MeterEntry({self.meter_id}, {MeterFlags(self.flags)!r}, {self.bands})"

    def modify(self, flags: int, bands: Sequence[MeterBand]) -> None:
        """New bands, with full buckets. The one in a band's place inherits what it has counted."""
        self.flags = flags
        self.bands = tuple(bands)
        self._counted = [*self._counted, *[(0, 0)] * len(self.bands)][: len(self.bands)]
        self._by_rate = sorted(range(len(self.bands)), key=lambda at: self.bands[at].rate)
        self._buckets = [_Bucket(band, self.in_packets) for band in self.config.bands]

    @property
    def in_packets(self) -> bool:
        """Whether rates and bursts count packets; else kilobits."""
        return bool(self.flags & MeterFlags.PKTPS)

    @property
    def config(self) -> MeterConfig:
        """What the fast path must know: a burst of 0 is the default one."""
        bands = self.bands
        if not self.flags & MeterFlags.BURST:
            bands = tuple(replace(band, burst=0) for band in bands)
        return MeterConfig(self.meter_id, self.in_packets, bands)

    @property
    def remarks(self) -> bool:
        """Whether it may change the DSCP of a packet."""
        return any(band.prec_level is not None for band in self.bands)

    @property
    def counters(self) -> MeterCounters:
        """What the slow path metered: add the fast path's."""
        return MeterCounters(self.packet_in_count, self.byte_in_count, tuple(self._counted))

    def run(self, packets: int, octets: int, now: float) -> int:
        """Meter and count: METER_PASSES, METER_DROPS, or by how much to raise the packet's drop precedence."""
        self.packet_in_count += packets
        self.byte_in_count += octets
        amount = packets if self.in_packets else octets
        nanoseconds = int(now * _SECOND)
        exceeded: int | None = None
        for at in self._by_rate:
            if not self._buckets[at].take(amount, nanoseconds):
                exceeded = at
        if exceeded is None:
            return METER_PASSES
        counted = self._counted[exceeded]
        self._counted[exceeded] = counted[0] + packets, counted[1] + octets
        level = self.bands[exceeded].prec_level
        return METER_DROPS if level is None else max(level, 1)


class MeterTable:
    """Meters by id."""

    __slots__ = ("_meters",)

    def __init__(self) -> None:
        self._meters: dict[int, MeterEntry] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def __contains__(self, meter_id: int) -> bool:
        return meter_id in self._meters

    def __iter__(self) -> Iterator[MeterEntry]:
        """In the order of their ids."""
        return (self._meters[meter_id] for meter_id in sorted(self._meters))

    def get(self, meter_id: int) -> MeterEntry | None:
        return self._meters.get(meter_id)

    def add(self, meter: MeterEntry) -> None:
        """Raises KeyError if there is one of that id."""
        if meter.meter_id in self._meters:
            raise KeyError(meter.meter_id)
        self._meters[meter.meter_id] = meter

    def modify(self, meter_id: int, flags: int, bands: Sequence[MeterBand]) -> MeterEntry:
        """Raises KeyError if there is no such meter."""
        meter = self._meters[meter_id]
        meter.modify(flags, bands)
        return meter

    def delete(self, meter_id: int) -> list[MeterEntry]:
        """Take out the meter, or all with OFPM_ALL; returns what was there. Flow entries that use it are the caller's."""
        if meter_id == OFPM_ALL:
            gone = list(self)
            self._meters.clear()
            return gone
        meter = self._meters.pop(meter_id, None)
        return [] if meter is None else [meter]
