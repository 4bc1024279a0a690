"""OFPT_METER_MOD, and what is told of meters (specification 1.3.5, sections 5.7, 6.6, 7.3.4.4 and 7.3.5.12 to 7.3.5.14).

The fast path has the token buckets and the counters, for the packets of all tiers.

Invariant: the fast path has a meter before any megaflow that uses it, and loses it after all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from appliance.model.megaflow import MAX_BANDS, MeterCounters
from appliance.model.megaflow import MeterBand as Band
from appliance.openflow.constants import OFPM_ALL, OFPM_MAX
from appliance.openflow.errors import ErrorType, MeterModFailed, ProtocolError
from appliance.openflow.messages import (
    FlowRemovedReason,
    MeterBand,
    MeterBandDrop,
    MeterBandDscpRemark,
    MeterBandExperimenter,
    MeterBandStats,
    MeterBandType,
    MeterConfig,
    MeterFeatures,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MeterStats,
)
from appliance.pipeline.flow_table import Pipeline
from appliance.pipeline.meter_table import MeterEntry
from appliance.switch.duration import duration
from appliance.switch.effects import Effect, RemoveMeter, SetMeter
from appliance.switch.flow_mods import FlowMods
from appliance.switch.megaflows import Megaflows

MAX_METERS = 1024
"""The fast path's."""
_BOTH_RATES = MeterFlags.KBPS | MeterFlags.PKTPS
_BAND_TYPES = 1 << MeterBandType.DROP | 1 << MeterBandType.DSCP_REMARK
_CAPABILITIES = MeterFlags.KBPS | MeterFlags.PKTPS | MeterFlags.BURST | MeterFlags.STATS
_NO_COUNTERS = MeterCounters(0, 0, ())


class MeterMods:
    """Changes the meter table of a pipeline, and keeps its megaflows and the fast path told."""

    def __init__(self, pipeline: Pipeline, megaflows: Megaflows, flow_mods: FlowMods, max_meters: int = MAX_METERS) -> None:
        self.max_meters = max_meters
        self._pipeline = pipeline
        self._meters = pipeline.meters
        self._megaflows = megaflows
        self._flow_mods = flow_mods
        self._sent: dict[int, tuple[MeterFlags, tuple[MeterBand, ...]]] = {}
        """Each meter's flags and bands as its controller sent them."""
        self._read: dict[int, MeterCounters] = {}
        """What the meters had counted when the fast path was asked last."""
        self._before: dict[int, tuple[tuple[int, int], ...]] = {}
        """What the bands had counted when the meter was modified last: that was others in their places."""

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(meter.meter_id for meter in self._meters)

    # ── changing ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, mod: MeterMod, now: float, removed: Callable[[], list[Effect]]) -> list[Effect]:
        """Do it. Raises ProtocolError, having changed nothing.

        ``removed`` brings the fast path in line with the tables at once, so that no packet meets a meter that has gone.
        """
        if mod.command is MeterModCommand.DELETE:
            return self._delete(mod.meter_id, now, removed)
        if mod.command is MeterModCommand.ADD:
            self._check_new(mod.meter_id)
        elif mod.meter_id not in self._meters:
            raise _failed(MeterModFailed.UNKNOWN_METER, f"there is no meter {mod.meter_id:#x}")
        bands = _bands(mod)
        if mod.command is MeterModCommand.ADD:
            meter = MeterEntry(mod.meter_id, mod.flags, bands, created_at=now)
            self._meters.add(meter)
        else:
            (meter,) = self._of(mod.meter_id)
            self._before[mod.meter_id] = self._counters(meter).bands
            self._meters.modify(mod.meter_id, mod.flags, bands)
            self._megaflows.meter_changed(mod.meter_id)
        self._sent[mod.meter_id] = (mod.flags, mod.bands)
        return [SetMeter(meter.config)]

    def _check_new(self, meter_id: int) -> None:
        if not 1 <= meter_id <= OFPM_MAX:
            raise _failed(MeterModFailed.INVALID_METER, f"meter {meter_id:#x}")
        if meter_id in self._meters:
            raise _failed(MeterModFailed.METER_EXISTS, f"meter {meter_id} exists")
        if len(self._meters) >= self.max_meters:
            raise _failed(MeterModFailed.OUT_OF_METERS, f"there are {len(self._meters)} meters")

    def _delete(self, meter_id: int, now: float, removed: Callable[[], list[Effect]]) -> list[Effect]:
        """With the flow entries that use it, for which OpenFlow 1.3 has no reason of its own. Also if it is gone (section 6.6)."""
        gone = {meter.meter_id for meter in self._meters.delete(meter_id)}
        if not gone:
            return []
        self._flow_mods.remove_where(lambda entry: entry.meter_id in gone, FlowRemovedReason.DELETE, now)
        for number in gone:
            del self._sent[number]
            self._read.pop(number, None)
            self._before.pop(number, None)
            self._megaflows.meter_changed(number)
        return [*removed(), *(RemoveMeter(number) for number in sorted(gone))]

    # ── counting ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def count(self, counters: Mapping[int, MeterCounters]) -> None:
        """What the meters have counted. Ids that are no meters are passed over."""
        self._read.update({meter_id: read for meter_id, read in counters.items() if meter_id in self._meters})

    def _counters(self, meter: MeterEntry) -> MeterCounters:
        """Of the bands since the meter was made, whatever they were."""
        read = self._read.get(meter.meter_id, _NO_COUNTERS)
        bands = [*read.bands, *[(0, 0)] * len(meter.bands)][: len(meter.bands)]
        return replace(read, bands=tuple(bands))

    # ── telling ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def statistics(self, meter_id: int, now: float) -> tuple[MeterStats, ...]:
        """Of one meter, or of all for OFPM_ALL. Raises METER_MOD_FAILED/UNKNOWN_METER."""
        references = self._pipeline.meter_references()
        return tuple(self._statistics(meter, references[meter.meter_id], now) for meter in self._of(meter_id))

    def _statistics(self, meter: MeterEntry, flows: int, now: float) -> MeterStats:
        counted = self._counters(meter)
        before = [*self._before.get(meter.meter_id, ()), *[(0, 0)] * len(counted.bands)]
        bands = tuple(MeterBandStats(a - c, b - d) for (a, b), (c, d) in zip(counted.bands, before, strict=False))
        lasted = duration(meter.created_at, now)
        return MeterStats(meter.meter_id, flows, counted.packet_in_count, counted.byte_in_count, *lasted, bands)

    def configurations(self, meter_id: int) -> tuple[MeterConfig, ...]:
        """As ``statistics``: as the controllers sent them."""
        sent = ((meter.meter_id, *self._sent[meter.meter_id]) for meter in self._of(meter_id))
        return tuple(MeterConfig(flags, number, bands) for number, flags, bands in sent)

    def features(self) -> MeterFeatures:
        return MeterFeatures(self.max_meters, _BAND_TYPES, _CAPABILITIES, MAX_BANDS)

    def _of(self, meter_id: int) -> Iterator[MeterEntry]:
        if meter_id != OFPM_ALL and meter_id not in self._meters:
            raise _failed(MeterModFailed.UNKNOWN_METER, f"there is no meter {meter_id:#x}")
        return (meter for meter in self._meters if meter_id in (OFPM_ALL, meter.meter_id))


def _bands(mod: MeterMod) -> tuple[Band, ...]:
    """Raises METER_MOD_FAILED unless a meter can have these flags and bands."""
    if mod.flags & _BOTH_RATES == _BOTH_RATES:
        raise _failed(MeterModFailed.BAD_FLAGS, "rates are in kb/s or in packets/s, not both")
    if len(mod.bands) > MAX_BANDS:
        raise _failed(MeterModFailed.OUT_OF_BANDS, f"{len(mod.bands)} bands, a meter has {MAX_BANDS}")
    return tuple(_band(band, mod.flags) for band in mod.bands)


def _band(band: MeterBand, flags: MeterFlags) -> Band:
    if isinstance(band, MeterBandExperimenter):
        raise _failed(MeterModFailed.BAD_BAND, f"band of experimenter {band.experimenter:#010x}")
    if band.rate == 0:
        raise _failed(MeterModFailed.BAD_RATE, "a rate of 0 lets nothing through: a flow entry that drops does that")
    if flags & MeterFlags.BURST and band.burst_size == 0:
        raise _failed(MeterModFailed.BAD_BURST, "a burst of 0 lets nothing through")
    match band:
        case MeterBandDrop(rate, burst_size):
            return Band(rate, burst_size)
        case MeterBandDscpRemark(rate, burst_size, prec_level):
            if prec_level == 0:
                raise _failed(MeterModFailed.BAD_BAND_VALUE, "a remark by 0 levels")
            return Band(rate, burst_size, prec_level)


def _failed(code: MeterModFailed, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.METER_MOD_FAILED, code, reason)
