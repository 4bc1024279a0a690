"""MultipartRequest and MultipartReply, whose bodies the other modules define, and Desc (specification 1.3.5, section 7.3.5)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.openflow.flow_statistics import AggregateStats, AggregateStatsRequest, FlowStatsReply, FlowStatsRequest
from appliance.openflow.group import (
    GroupDescReply,
    GroupDescRequest,
    GroupFeatures,
    GroupFeaturesRequest,
    GroupStatsReply,
    GroupStatsRequest,
)
from appliance.openflow.message import Message
from appliance.openflow.meter import (
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeatures,
    MeterFeaturesRequest,
    MeterStatsReply,
    MeterStatsRequest,
)
from appliance.openflow.port import PortDescReply, PortDescRequest, PortStatsReply, PortStatsRequest
from appliance.openflow.queue import QueueStatsReply, QueueStatsRequest
from appliance.openflow.table import TableStatsReply, TableStatsRequest
from appliance.openflow.table_features import TableFeaturesReply, TableFeaturesRequest


@dataclass(frozen=True, slots=True)
class DescRequest:
    pass


@dataclass(frozen=True, slots=True)
class Desc:
    """Texts of at most 255 bytes in UTF-8 (``serial_num``: 31); longer ones are cut."""

    mfr_desc: str = ""
    hw_desc: str = ""
    sw_desc: str = ""
    serial_num: str = ""
    dp_desc: str = ""


@dataclass(frozen=True, slots=True)
class ExperimenterMultipart:
    """The body of an experimenter's multipart request or reply."""

    experimenter: int
    exp_type: int
    data: bytes = b""


MultipartRequestBody = (
    DescRequest
    | FlowStatsRequest
    | AggregateStatsRequest
    | TableStatsRequest
    | PortStatsRequest
    | QueueStatsRequest
    | GroupStatsRequest
    | GroupDescRequest
    | GroupFeaturesRequest
    | MeterStatsRequest
    | MeterConfigRequest
    | MeterFeaturesRequest
    | TableFeaturesRequest
    | PortDescRequest
    | ExperimenterMultipart
)
MultipartReplyBody = (
    Desc
    | FlowStatsReply
    | AggregateStats
    | TableStatsReply
    | PortStatsReply
    | QueueStatsReply
    | GroupStatsReply
    | GroupDescReply
    | GroupFeatures
    | MeterStatsReply
    | MeterConfigReply
    | MeterFeatures
    | TableFeaturesReply
    | PortDescReply
    | ExperimenterMultipart
)


@dataclass(frozen=True, slots=True)
class MultipartRequest(Message):
    """``flags`` has constants.MORE where another part follows; ``Connection`` joins parts, so that its messages never have it."""

    body: MultipartRequestBody
    flags: int = 0


@dataclass(frozen=True, slots=True)
class MultipartReply(Message):
    """As MultipartRequest."""

    body: MultipartReplyBody
    flags: int = 0
