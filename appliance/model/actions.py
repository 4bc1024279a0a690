"""OpenFlow actions and instructions, as the specification names them (1.3.5, sections 7.2.4 and 7.2.5)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model.fields import Field

OFPCML_NO_BUFFER = 0xFFFF
OFP_NO_BUFFER = 0xFFFFFFFF


# ── actions ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Output:
    """OFPAT_OUTPUT. ``port`` may be a reserved port; ``max_len`` counts for OFPP_CONTROLLER only (bytes of the frame)."""

    port: int
    max_len: int = OFPCML_NO_BUFFER


@dataclass(frozen=True, slots=True)
class Group:
    group_id: int


@dataclass(frozen=True, slots=True)
class SetQueue:
    queue_id: int


@dataclass(frozen=True, slots=True)
class SetField:
    """OFPAT_SET_FIELD; ``value`` is not shifted."""

    field: Field
    value: int


@dataclass(frozen=True, slots=True)
class PushVlan:
    """OFPAT_PUSH_VLAN. The new tag copies VID and PCP of the one that was outermost, or has both 0."""

    ethertype: int


@dataclass(frozen=True, slots=True)
class PopVlan:
    pass


@dataclass(frozen=True, slots=True)
class PushMpls:
    ethertype: int


@dataclass(frozen=True, slots=True)
class PopMpls:
    ethertype: int


@dataclass(frozen=True, slots=True)
class PushPbb:
    ethertype: int


@dataclass(frozen=True, slots=True)
class PopPbb:
    pass


@dataclass(frozen=True, slots=True)
class SetMplsTtl:
    ttl: int


@dataclass(frozen=True, slots=True)
class DecMplsTtl:
    pass


@dataclass(frozen=True, slots=True)
class SetNwTtl:
    ttl: int


@dataclass(frozen=True, slots=True)
class DecNwTtl:
    pass


@dataclass(frozen=True, slots=True)
class CopyTtlOut:
    pass


@dataclass(frozen=True, slots=True)
class CopyTtlIn:
    pass


@dataclass(frozen=True, slots=True)
class ExperimenterAction:
    experimenter: int
    data: bytes


Action = (
    Output
    | Group
    | SetQueue
    | SetField
    | PushVlan
    | PopVlan
    | PushMpls
    | PopMpls
    | PushPbb
    | PopPbb
    | SetMplsTtl
    | DecMplsTtl
    | SetNwTtl
    | DecNwTtl
    | CopyTtlOut
    | CopyTtlIn
    | ExperimenterAction
)


# ── instructions ───────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class GotoTable:
    table_id: int


@dataclass(frozen=True, slots=True)
class WriteMetadata:
    metadata: int
    metadata_mask: int


@dataclass(frozen=True, slots=True)
class WriteActions:
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class ApplyActions:
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class ClearActions:
    pass


@dataclass(frozen=True, slots=True)
class Meter:
    meter_id: int


@dataclass(frozen=True, slots=True)
class ExperimenterInstruction:
    experimenter: int
    data: bytes


Instruction = GotoTable | WriteMetadata | WriteActions | ApplyActions | ClearActions | Meter | ExperimenterInstruction
