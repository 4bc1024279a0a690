"""Meter entries and the meter table (specification 1.3.5, section 5.7).

What meters packets, for all tiers, is the fast path, told by ``MeterEntry.config``: it has the token buckets and the counters.

Invariant: the controller reads back its flags and bands as it sent them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import IntFlag

from appliance.model.megaflow import MeterBand, MeterConfig

OFPM_MAX = 0xFFFF0000
OFPM_ALL = 0xFFFFFFFF


class MeterFlags(IntFlag):
    """OFPMF_*."""

    NONE = 0
    KBPS = 1 << 0
    PKTPS = 1 << 1
    BURST = 1 << 2
    STATS = 1 << 3


class MeterEntry:
    """One meter. Compared and hashed by identity; a modified meter is the same one.

    ``bands`` are as the controller sent them, in its order; ``flags`` say whether their rates are packets or kilobits, and whether
    their bursts count.
    """

    __slots__ = ("bands", "created_at", "flags", "meter_id")

    def __init__(self, meter_id: int, flags: int, bands: Sequence[MeterBand], *, created_at: float = 0.0) -> None:
        self.meter_id = meter_id
        self.created_at = created_at
        self.flags = flags
        self.bands = tuple(bands)

    def __repr__(self) -> str:
        return f"MeterEntry({self.meter_id}, {MeterFlags(self.flags)!r}, {self.bands})"

    def modify(self, flags: int, bands: Sequence[MeterBand]) -> None:
        """New bands."""
        self.flags = flags
        self.bands = tuple(bands)

    @property
    def config(self) -> MeterConfig:
        """What the fast path must know: a burst of 0 is the default one."""
        bands = self.bands
        if not self.flags & MeterFlags.BURST:
            bands = tuple(replace(band, burst=0) for band in bands)
        return MeterConfig(self.meter_id, bool(self.flags & MeterFlags.PKTPS), bands)

    @property
    def remarks(self) -> bool:
        """Whether it may change the DSCP of a packet."""
        return any(band.prec_level is not None for band in self.bands)


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
