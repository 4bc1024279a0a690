"""Numbers of OpenFlow 1.3 that belong to no single family of messages (specification 1.3.5, section 7).

Enumerations are written out, so that mypy knows them; a test holds every one against Ryu's constants.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from appliance.openflow.ryu import ofproto_v1_3 as ofproto

OFP_VERSION: Final[int] = ofproto.OFP_VERSION
OFPTT_MAX: Final[int] = ofproto.OFPTT_MAX
OFPTT_ALL: Final[int] = ofproto.OFPTT_ALL
OFPG_MAX: Final[int] = ofproto.OFPG_MAX
OFPG_ALL: Final[int] = ofproto.OFPG_ALL
OFPG_ANY: Final[int] = ofproto.OFPG_ANY
OFPM_MAX: Final[int] = ofproto.OFPM_MAX
OFPM_SLOWPATH: Final[int] = ofproto.OFPM_SLOWPATH
OFPM_CONTROLLER: Final[int] = ofproto.OFPM_CONTROLLER
OFPM_ALL: Final[int] = ofproto.OFPM_ALL
OFPQ_ALL: Final[int] = ofproto.OFPQ_ALL
OFPCML_MAX: Final[int] = ofproto.OFPCML_MAX

HEADER_BYTES = 8
MATCH_HEADER_BYTES = 4
OXM_HEADER_BYTES = 4
OXM_EXPERIMENTER_BYTES = 4
"""The experimenter's id, behind the header of an OXM of class OFPXMC_EXPERIMENTER."""
MAX_MESSAGE_BYTES = 0xFFFF
MORE = 1
"""OFPMPF_REQ_MORE and OFPMPF_REPLY_MORE: another message of the same multipart request or reply follows."""


class MessageType(IntEnum):
    """OFPT_*."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    PORT_MOD = 16
    TABLE_MOD = 17
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    QUEUE_GET_CONFIG_REQUEST = 22
    QUEUE_GET_CONFIG_REPLY = 23
    ROLE_REQUEST = 24
    ROLE_REPLY = 25
    GET_ASYNC_REQUEST = 26
    GET_ASYNC_REPLY = 27
    SET_ASYNC = 28
    METER_MOD = 29


class MultipartType(IntEnum):
    """OFPMP_*."""

    DESC = 0
    FLOW = 1
    AGGREGATE = 2
    TABLE = 3
    PORT_STATS = 4
    QUEUE = 5
    GROUP = 6
    GROUP_DESC = 7
    GROUP_FEATURES = 8
    METER = 9
    METER_CONFIG = 10
    METER_FEATURES = 11
    TABLE_FEATURES = 12
    PORT_DESC = 13
    EXPERIMENTER = 0xFFFF


class ActionType(IntEnum):
    """OFPAT_*."""

    OUTPUT = 0
    COPY_TTL_OUT = 11
    COPY_TTL_IN = 12
    SET_MPLS_TTL = 15
    DEC_MPLS_TTL = 16
    PUSH_VLAN = 17
    POP_VLAN = 18
    PUSH_MPLS = 19
    POP_MPLS = 20
    SET_QUEUE = 21
    GROUP = 22
    SET_NW_TTL = 23
    DEC_NW_TTL = 24
    SET_FIELD = 25
    PUSH_PBB = 26
    POP_PBB = 27
    EXPERIMENTER = 0xFFFF


class InstructionType(IntEnum):
    """OFPIT_*."""

    GOTO_TABLE = 1
    WRITE_METADATA = 2
    WRITE_ACTIONS = 3
    APPLY_ACTIONS = 4
    CLEAR_ACTIONS = 5
    METER = 6
    EXPERIMENTER = 0xFFFF
