"""The meters of all tiers: struct meter in shared memory. eBPF takes the tokens, for the slow path's packets too (``take``).

Invariant: what a band has counted stays through a change of the meter's configuration.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable

from appliance.datapath.driver import DatapathError
from appliance.datapath.layout import MAX_METERS
from appliance.datapath.layout import Meter as MeterSlot
from appliance.datapath.programs import call
from appliance.model.megaflow import MAX_BANDS, MeterBand, MeterConfig, MeterCounters
from appliance.packet.meter import METER_PASSES

_SECOND = 1_000_000_000
_COST_SHIFT = 16
_KILOBIT_BYTES = 125
_DEFAULT_BURST_SECONDS = 1.0
"""Of a band that does not say (OpenFlow 1.3.5, section 7.3.4.5, leaves it to the switch)."""


_METERED = struct.Struct("=4I")
_ETHERNET_HEADER = bytes(14)
"""Of no protocol that the kernel would look into."""


class Meters:
    """Meters by id. ``indices`` are their places in the map."""

    BYTES = MAX_METERS * ctypes.sizeof(MeterSlot)

    def __init__(self, memory: mmap.mmap, take_fd: int) -> None:
        """``take_fd``: the program "ofswitch_take"."""
        self._take_fd = take_fd
        self._slots = (MeterSlot * MAX_METERS).from_buffer(memory)
        self._free = list(range(MAX_METERS - 1, -1, -1))
        self._order: dict[int, list[int]] = {}
        """By meter id: for each band as configured, its place among those sorted by rate."""
        self.indices: dict[int, int] = {}

    def set(self, meter: MeterConfig) -> None:
        """Raises DatapathError if there are too many."""
        if len(meter.bands) > MAX_BANDS:
            raise DatapathError(f"meter {meter.meter_id} has {len(meter.bands)} bands, the fast path takes {MAX_BANDS}")
        index = self.indices.get(meter.meter_id)
        if index is None:
            if not self._free:
                raise DatapathError(f"no room for meter {meter.meter_id}: the fast path has {MAX_METERS}")
            index = self.indices[meter.meter_id] = self._free.pop()
            ctypes.memset(ctypes.addressof(self._slots[index]), 0, ctypes.sizeof(MeterSlot))
        before = self.counters((meter.meter_id,)).get(meter.meter_id)
        slot = self._slots[index]
        slot.bands = 0
        slot.in_packets = int(meter.in_packets)
        by_rate = sorted(range(len(meter.bands)), key=lambda n: meter.bands[n].rate)
        self._order[meter.meter_id] = [by_rate.index(n) for n in range(len(meter.bands))]
        for place, n in enumerate(by_rate):
            _write_band(slot.band[place], meter.bands[n], meter.in_packets)
            counted = before.bands[n] if before and n < len(before.bands) else (0, 0)
            slot.band[place].packets, slot.band[place].bytes = counted
        slot.bands = len(meter.bands)

    def take(self, meter_id: int, packets: int, octets: int) -> int:
        """See ``driver.Datapath.meter``."""
        index = self.indices.get(meter_id)
        if index is None:
            return METER_PASSES
        try:
            return call(self._take_fd, _ETHERNET_HEADER + _METERED.pack(index, packets, octets, 0))
        except OSError as error:
            raise DatapathError(f"cannot run the meter program: {error.strerror}") from error

    def remove(self, meter_id: int) -> None:
        index = self.indices.pop(meter_id, None)
        if index is not None:
            self._free.append(index)
            del self._order[meter_id]

    def counters(self, meter_ids: Iterable[int]) -> dict[int, MeterCounters]:
        result: dict[int, MeterCounters] = {}
        for meter_id in meter_ids:
            index = self.indices.get(meter_id)
            if index is not None and meter_id in self._order:
                slot = self._slots[index]
                bands = tuple((slot.band[place].packets, slot.band[place].bytes) for place in self._order[meter_id])
                result[meter_id] = MeterCounters(slot.packets, slot.bytes, bands)
        return result


def _write_band(slot: ctypes.Structure, band: MeterBand, in_packets: bool) -> None:
    """struct band, with a full bucket."""
    unit = 1 if in_packets else _KILOBIT_BYTES
    rate = max(band.rate * unit, 1)  # packets or bytes a second
    slot.cost = (_SECOND << _COST_SHIFT) // rate
    slot.burst = band.burst * unit * _SECOND // rate if band.burst else int(_DEFAULT_BURST_SECONDS * _SECOND)
    slot.full_at = 0
    slot.remark = 0 if band.prec_level is None else max(band.prec_level, 1)
