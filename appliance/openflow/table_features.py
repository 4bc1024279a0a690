"""Table features: what each table can do (specification 1.3.5, section 7.3.5.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from appliance.model.fields import OFPXMC_EXPERIMENTER
from appliance.openflow.constants import OXM_HEADER_BYTES, MultipartType
from appliance.openflow.errors import ErrorType, ProtocolError, TableFeaturesFailed
from appliance.openflow.wire import TYPE_LENGTH, BodyCodec, decode_text, encode_text, pad

OFP_MAX_TABLE_NAME_LEN = 32
EXPERIMENTER_ID = 0xFFFF
"""OFPIT_EXPERIMENTER and OFPAT_EXPERIMENTER."""

_FEATURES = Struct("!HB5x32sQQII")
_EXPERIMENTER = Struct("!II")
_U32 = Struct("!I")


class TableFeaturePropertyType(IntEnum):
    """OFPTFPT_*. One with _MISS is for the table-miss entry; where it is left out, the other holds for both."""

    INSTRUCTIONS = 0
    INSTRUCTIONS_MISS = 1
    NEXT_TABLES = 2
    NEXT_TABLES_MISS = 3
    WRITE_ACTIONS = 4
    WRITE_ACTIONS_MISS = 5
    APPLY_ACTIONS = 6
    APPLY_ACTIONS_MISS = 7
    MATCH = 8
    WILDCARDS = 10
    WRITE_SETFIELD = 12
    WRITE_SETFIELD_MISS = 13
    APPLY_SETFIELD = 14
    APPLY_SETFIELD_MISS = 15
    EXPERIMENTER = 0xFFFE
    EXPERIMENTER_MISS = 0xFFFF


@dataclass(frozen=True, slots=True)
class ExperimenterId:
    """An experimenter's instruction or action in a list of types."""

    experimenter: int


@dataclass(frozen=True, slots=True)
class InstructionsProperty:
    type: TableFeaturePropertyType
    instruction_ids: tuple[int | ExperimenterId, ...] = ()
    """OFPIT_* numbers."""


@dataclass(frozen=True, slots=True)
class NextTablesProperty:
    type: TableFeaturePropertyType
    table_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ActionsProperty:
    type: TableFeaturePropertyType
    action_ids: tuple[int | ExperimenterId, ...] = ()
    """OFPAT_* numbers."""


@dataclass(frozen=True, slots=True)
class OxmProperty:
    type: TableFeaturePropertyType
    oxm_ids: tuple[int, ...] = ()
    """OXM headers as 32-bit integers (``oxm.oxm_id(field, hasmask)``), of 64 bits in the experimenter's class."""


@dataclass(frozen=True, slots=True)
class ExperimenterProperty:
    type: TableFeaturePropertyType
    experimenter: int
    exp_type: int
    data: bytes = b""


TableFeatureProperty = InstructionsProperty | NextTablesProperty | ActionsProperty | OxmProperty | ExperimenterProperty


@dataclass(frozen=True, slots=True)
class TableFeatures:
    table_id: int
    name: str = ""
    metadata_match: int = 0
    metadata_write: int = 0
    config: int = 0
    max_entries: int = 0
    properties: tuple[TableFeatureProperty, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFeaturesRequest:
    """An empty request asks; one with tables would set them."""

    tables: tuple[TableFeatures, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFeaturesReply:
    tables: tuple[TableFeatures, ...] = ()


# ── the parts of a property ────────────────────────────────────────────────────────────────────────────────────────────
def _features_error(code: TableFeaturesFailed, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.TABLE_FEATURES_FAILED, code, reason)


def _bad_len(reason: str) -> ProtocolError:
    return _features_error(TableFeaturesFailed.BAD_LEN, reason)


def _type_ids(payload: bytes) -> Iterator[int | ExperimenterId]:
    """Types of actions or instructions: (type, length) of 4 bytes, an experimenter's of 8."""
    position = 0
    while position < len(payload):
        if position + TYPE_LENGTH.size > len(payload):
            raise _bad_len("the list ends inside an entry")
        kind, length = TYPE_LENGTH.unpack_from(payload, position)
        if length != (8 if kind == EXPERIMENTER_ID else 4) or position + length > len(payload):
            raise _bad_len(f"entry of type {kind}, {length} bytes")
        yield ExperimenterId(_U32.unpack_from(payload, position + 4)[0]) if kind == EXPERIMENTER_ID else kind
        position += length


def _encode_type_id(item: int | ExperimenterId) -> bytes:
    if isinstance(item, ExperimenterId):
        return TYPE_LENGTH.pack(EXPERIMENTER_ID, 8) + _U32.pack(item.experimenter)
    return TYPE_LENGTH.pack(item, 4)


def _oxm_ids(payload: bytes) -> Iterator[int]:
    position = 0
    while position < len(payload):
        size = OXM_HEADER_BYTES
        if payload[position : position + 2] == OFPXMC_EXPERIMENTER.to_bytes(2, "big"):
            size += 4
        if position + size > len(payload):
            raise _bad_len("the list ends inside an OXM header")
        yield int.from_bytes(payload[position : position + size], "big")
        position += size


def _encode_oxm_id(item: int) -> bytes:
    return item.to_bytes(OXM_HEADER_BYTES if item < 1 << 32 else OXM_HEADER_BYTES + 4, "big")


def _decode_experimenter(kind: TableFeaturePropertyType, payload: bytes) -> ExperimenterProperty:
    if len(payload) < _EXPERIMENTER.size:
        raise _bad_len("experimenter property without its id")
    experimenter, exp_type = _EXPERIMENTER.unpack_from(payload)
    return ExperimenterProperty(kind, experimenter, exp_type, payload[_EXPERIMENTER.size :])


def _decode_instructions(kind: TableFeaturePropertyType, payload: bytes) -> InstructionsProperty:
    return InstructionsProperty(kind, tuple(_type_ids(payload)))


def _decode_next_tables(kind: TableFeaturePropertyType, payload: bytes) -> NextTablesProperty:
    return NextTablesProperty(kind, tuple(payload))


def _decode_actions(kind: TableFeaturePropertyType, payload: bytes) -> ActionsProperty:
    return ActionsProperty(kind, tuple(_type_ids(payload)))


def _decode_oxms(kind: TableFeaturePropertyType, payload: bytes) -> OxmProperty:
    return OxmProperty(kind, tuple(_oxm_ids(payload)))


_PropertyType = TableFeaturePropertyType
_DECODERS: dict[int, Callable[[TableFeaturePropertyType, bytes], TableFeatureProperty]] = {
    _PropertyType.INSTRUCTIONS: _decode_instructions,
    _PropertyType.INSTRUCTIONS_MISS: _decode_instructions,
    _PropertyType.NEXT_TABLES: _decode_next_tables,
    _PropertyType.NEXT_TABLES_MISS: _decode_next_tables,
    _PropertyType.WRITE_ACTIONS: _decode_actions,
    _PropertyType.WRITE_ACTIONS_MISS: _decode_actions,
    _PropertyType.APPLY_ACTIONS: _decode_actions,
    _PropertyType.APPLY_ACTIONS_MISS: _decode_actions,
    _PropertyType.MATCH: _decode_oxms,
    _PropertyType.WILDCARDS: _decode_oxms,
    _PropertyType.WRITE_SETFIELD: _decode_oxms,
    _PropertyType.WRITE_SETFIELD_MISS: _decode_oxms,
    _PropertyType.APPLY_SETFIELD: _decode_oxms,
    _PropertyType.APPLY_SETFIELD_MISS: _decode_oxms,
    _PropertyType.EXPERIMENTER: _decode_experimenter,
    _PropertyType.EXPERIMENTER_MISS: _decode_experimenter,
}


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _properties(data: bytes, position: int, end: int) -> Iterator[TableFeatureProperty]:
    while position < end:
        if position + TYPE_LENGTH.size > end:
            raise _bad_len("the table ends inside a property")
        kind, length = TYPE_LENGTH.unpack_from(data, position)
        decode = _DECODERS.get(kind)
        if decode is None:
            raise _features_error(TableFeaturesFailed.BAD_TYPE, f"property type {kind}")
        if length < TYPE_LENGTH.size or position + length + pad(length) > end:
            raise _bad_len(f"property of {length} bytes")
        yield decode(TableFeaturePropertyType(kind), data[position + TYPE_LENGTH.size : position + length])
        position += length + pad(length)


def _encode_property(item: TableFeatureProperty) -> bytes:
    match item:
        case InstructionsProperty(_, ids) | ActionsProperty(_, ids):
            payload = b"".join([_encode_type_id(entry) for entry in ids])
        case NextTablesProperty(_, table_ids):
            payload = bytes(table_ids)
        case OxmProperty(_, oxm_ids):
            payload = b"".join([_encode_oxm_id(entry) for entry in oxm_ids])
        case ExperimenterProperty(_, experimenter, exp_type, data):
            payload = _EXPERIMENTER.pack(experimenter, exp_type) + data
    length = TYPE_LENGTH.size + len(payload)
    return TYPE_LENGTH.pack(item.type, length) + payload + bytes(pad(length))


def _tables(data: bytes) -> Iterator[TableFeatures]:
    position = 0
    while position < len(data):
        start = position + _FEATURES.size
        if start > len(data):
            raise _bad_len("the message ends inside a table")
        length, table_id, name, match, write, config, max_entries = _FEATURES.unpack_from(data, position)
        position += length
        if start > position or position > len(data):
            raise _bad_len(f"table of {length} bytes")
        properties = tuple(_properties(data, start, position))
        yield TableFeatures(table_id, decode_text(name), match, write, config, max_entries, properties)


def _encode_table(table: TableFeatures) -> bytes:
    properties = b"".join([_encode_property(item) for item in table.properties])
    head = _FEATURES.pack(
        _FEATURES.size + len(properties),
        table.table_id,
        encode_text(table.name, OFP_MAX_TABLE_NAME_LEN),
        table.metadata_match,
        table.metadata_write,
        table.config,
        table.max_entries,
    )
    return head + properties


def encode_tables(body: TableFeaturesRequest | TableFeaturesReply) -> list[bytes]:
    return [_encode_table(table) for table in body.tables]


REQUESTS = (
    BodyCodec(
        MultipartType.TABLE_FEATURES,
        TableFeaturesRequest,
        lambda data: TableFeaturesRequest(tuple(_tables(data))),
        encode_tables,
    ),
)
REPLIES = (
    BodyCodec(
        MultipartType.TABLE_FEATURES, TableFeaturesReply, lambda data: TableFeaturesReply(tuple(_tables(data))), encode_tables
    ),
)
