"""Meters: MeterMod and the multipart bodies (specification 1.3.5, sections 7.3.4.4, 7.3.5.12 to 7.3.5.14)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from appliance.openflow.constants import OFPM_ALL
from appliance.openflow.message import Message


class MeterModCommand(IntEnum):
    """OFPMC_*."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


class MeterFlags(IntFlag):
    """OFPMF_*."""

    NONE = 0
    KBPS = 1 << 0
    PKTPS = 1 << 1
    BURST = 1 << 2
    STATS = 1 << 3


class MeterBandType(IntEnum):
    """OFPMBT_*."""

    DROP = 1
    DSCP_REMARK = 2
    EXPERIMENTER = 0xFFFF


@dataclass(frozen=True, slots=True)
class MeterBandDrop:
    """``rate`` in kb/s or packets/s by the meter's flags, ``burst_size`` in kb or packets."""

    rate: int
    burst_size: int = 0


@dataclass(frozen=True, slots=True)
class MeterBandDscpRemark:
    rate: int
    burst_size: int = 0
    prec_level: int = 0


@dataclass(frozen=True, slots=True)
class MeterBandExperimenter:
    rate: int
    burst_size: int
    experimenter: int
    data: bytes = b""


MeterBand = MeterBandDrop | MeterBandDscpRemark | MeterBandExperimenter


@dataclass(frozen=True, slots=True)
class MeterMod(Message):
    command: MeterModCommand
    flags: MeterFlags
    meter_id: int
    bands: tuple[MeterBand, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterStatsRequest:
    meter_id: int = OFPM_ALL


@dataclass(frozen=True, slots=True)
class MeterBandStats:
    packet_band_count: int
    byte_band_count: int


@dataclass(frozen=True, slots=True)
class MeterStats:
    meter_id: int
    flow_count: int
    packet_in_count: int
    byte_in_count: int
    duration_sec: int
    duration_nsec: int
    band_stats: tuple[MeterBandStats, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterStatsReply:
    entries: tuple[MeterStats, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterConfigRequest:
    meter_id: int = OFPM_ALL


@dataclass(frozen=True, slots=True)
class MeterConfig:
    flags: MeterFlags
    meter_id: int
    bands: tuple[MeterBand, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterConfigReply:
    entries: tuple[MeterConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class MeterFeatures:
    """``band_types`` is a bitmap of 1 << MeterBandType; ``capabilities`` are MeterFlags."""

    max_meter: int = 0
    band_types: int = 0
    capabilities: MeterFlags = MeterFlags.NONE
    max_bands: int = 0
    max_color: int = 0
