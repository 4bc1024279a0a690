"""Our codec against os-ken's, written by other people: what its controller sends we read, and what we send it reads.

One table for each direction. The first is compared byte for byte, both ways; the second through the attributes that os-ken makes
of our bytes, because os-ken cannot serialise a switch's messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Any

import pytest
from os_ken.ofproto import nicira_ext, ofproto_parser
from vectors.openflow_from_controller import DATAPATH, FROM_CONTROLLER, OFP
from vectors.openflow_terms import XID
from vectors.openflow_to_controller import TO_CONTROLLER

from appliance.model.fields import EXTENSION_FIELDS, OXM_FIELDS
from appliance.model.match import MatchField
from appliance.openflow import constants, errors, flow, group, meter, queue, role, table_features
from appliance.openflow import messages as m
from appliance.openflow.codec import HEADER, decode, encode
from appliance.openflow.message import MessageBase
from appliance.openflow.oxm import oxm_id

OPENFLOW_BASIC = 0x8000


@pytest.mark.parametrize(("theirs", "ours"), FROM_CONTROLLER.values(), ids=FROM_CONTROLLER.keys())
def test_controllers_messages(theirs: Any, ours: m.Message) -> None:
    theirs.set_xid(XID)
    theirs.serialize()
    raw = bytes(theirs.buf)
    decoded = decode(raw)
    assert decoded == ours
    assert _fields(decoded) == _fields(ours)
    assert encode(ours) == raw


def _fields(message: m.Message) -> tuple[MatchField, ...]:
    """The order of a match's fields, which equality of matches leaves out."""
    if isinstance(message, m.FlowMod):
        return message.match.fields
    if isinstance(message, m.MultipartRequest) and isinstance(message.body, m.FlowStatsRequest | m.AggregateStatsRequest):
        return message.body.match.fields
    return ()


def test_every_field_of_the_table_is_the_peers() -> None:
    """Number, length and name of all 40 fields, from a match and from an OXM header."""
    for field in OXM_FIELDS:
        number, _, _ = OFP.oxm_from_user(field.name, None)
        assert number == OPENFLOW_BASIC << 7 | field.oxm, field.name
        raw = bytearray()
        OFP.oxm_serialize(number, b"\1" * field.oxm_length, None, raw, 0)
        assert int.from_bytes(raw[:4], "big") == oxm_id(field)
    assert [oxm_id(field) for field in EXTENSION_FIELDS] == [nicira_ext.NXM_NX_TUN_IPV4_SRC, nicira_ext.NXM_NX_TUN_IPV4_DST]


def peer(message: m.Message) -> Any:
    """os-ken's reading of the first message that ours becomes."""
    raw = encode(message)
    version, kind, length, xid = HEADER.unpack_from(raw)
    parsed = ofproto_parser.msg(DATAPATH, version, kind, length, xid, raw)
    assert parsed is not None
    assert parsed.xid == message.xid
    return parsed


@pytest.mark.parametrize(("ours", "look", "expected"), TO_CONTROLLER.values(), ids=TO_CONTROLLER.keys())
def test_switchs_messages(ours: m.Message, look: Callable[[Any], Any], expected: Any) -> None:
    assert look(peer(ours)) == expected
    assert decode(encode(ours)) == ours


def test_the_tables_leave_no_message_out() -> None:
    """Whatever a message is called, it is in one table or the other."""
    messages = [ours for _, ours in FROM_CONTROLLER.values()] + [ours for ours, _, _ in TO_CONTROLLER.values()]
    assert {type(message).__name__ for message in messages} == {
        kind.__name__ for kind in (*MessageBase.__subclasses__(), m.FlowMod)
    }
    assert {encode(message)[1] for message in messages} == set(constants.MessageType)
    for kind in (m.MultipartRequest, m.MultipartReply):
        bodies = {int.from_bytes(encode(message)[8:10], "big") for message in messages if isinstance(message, kind)}
        assert bodies == set(constants.MultipartType)


# ── constants ──────────────────────────────────────────────────────────────────────────────────────────────────────────
ENUMERATIONS: list[tuple[type[IntEnum] | type[IntFlag], str]] = [
    (constants.MessageType, "OFPT_"),
    (constants.MultipartType, "OFPMP_"),
    (constants.ActionType, "OFPAT_"),
    (constants.InstructionType, "OFPIT_"),
    (errors.ErrorType, "OFPET_"),
    (errors.HelloFailed, "OFPHFC_"),
    (errors.BadRequest, "OFPBRC_"),
    (errors.BadAction, "OFPBAC_"),
    (errors.BadInstruction, "OFPBIC_"),
    (errors.BadMatch, "OFPBMC_"),
    (errors.FlowModFailed, "OFPFMFC_"),
    (errors.GroupModFailed, "OFPGMFC_"),
    (errors.PortModFailed, "OFPPMFC_"),
    (errors.TableModFailed, "OFPTMFC_"),
    (errors.QueueOpFailed, "OFPQOFC_"),
    (errors.SwitchConfigFailed, "OFPSCFC_"),
    (errors.RoleRequestFailed, "OFPRRFC_"),
    (errors.MeterModFailed, "OFPMMFC_"),
    (errors.TableFeaturesFailed, "OFPTFFC_"),
    (flow.FlowModCommand, "OFPFC_"),
    (flow.FlowModFlags, "OFPFF_"),
    (flow.FlowRemovedReason, "OFPRR_"),
    (group.GroupModCommand, "OFPGC_"),
    (group.GroupType, "OFPGT_"),
    (group.GroupCapabilities, "OFPGFC_"),
    (meter.MeterModCommand, "OFPMC_"),
    (meter.MeterFlags, "OFPMF_"),
    (meter.MeterBandType, "OFPMBT_"),
    (queue.QueuePropertyType, "OFPQT_"),
    (role.Role, "OFPCR_ROLE_"),
    (table_features.TableFeaturePropertyType, "OFPTFPT_"),
    (m.PortReason, "OFPPR_"),
]


@pytest.mark.parametrize(("enumeration", "prefix"), ENUMERATIONS, ids=[prefix for _, prefix in ENUMERATIONS])
def test_enumerations_are_the_peers(enumeration: type[IntEnum] | type[IntFlag], prefix: str) -> None:
    theirs = {name.removeprefix(prefix): value for name, value in vars(OFP).items() if re.match(prefix + "[A-Z]", name)}
    ours = {name: int(value) for name, value in enumeration.__members__.items() if name != "NONE"}
    assert ours == theirs


def test_there_are_111_error_codes_of_15_types() -> None:
    """As the specification has them; EXPERIMENTER has none of its own."""
    codes = [kind for kind, prefix in ENUMERATIONS if prefix.endswith("C_") and kind.__module__ == errors.__name__]
    assert len(errors.ErrorType) == 15
    assert sum(len(kind) for kind in codes) == 111
