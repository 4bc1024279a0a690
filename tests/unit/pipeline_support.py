"""A pipeline in a line or two, and what packets become in it."""

from __future__ import annotations

from vectors import frames

from appliance.datapath.compile import compile_actions
from appliance.datapath.layout import MegaflowFlag
from appliance.model.actions import Action, ApplyActions, Group, Instruction, SetField, WriteActions
from appliance.model.fields import BY_NAME, ETH_DST, VLAN_VID
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import DatapathAction
from appliance.packet.parse import parse
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import Bucket, GroupEntry, GroupType
from appliance.pipeline.xlate import Translation, translate

F = BY_NAME
ALL, SELECT, INDIRECT, FF = GroupType
DST, SRC = SetField(ETH_DST, 5), SetField(F["eth_src"], 6)
TABLE_MISS = 0


def key_of(*tcis: int, ethertype: int = 0x0800) -> int:
    packet = frames.ipv4(6, frames.tcp()) if ethertype == 0x0800 else bytes.fromhex("00010140") + bytes(20)
    return parse(frames.ethernet(ethertype, packet, tuple((0x8100, tci) for tci in tcis)), 1).key


def vid(number: int) -> SetField:
    return SetField(VLAN_VID, number | 0x1000)


def bucket(*actions: Action, weight: int = 1, **watched: int) -> Bucket:
    return Bucket(actions, weight=weight, **watched)


class Setup:
    """One pipeline. Groups are numbered from 1 in the order of adding."""

    def __init__(self, *instructions: Instruction) -> None:
        self.pipeline = Pipeline()
        self.entry(0, *instructions)

    def entry(self, table_id: int, *instructions: Instruction, priority: int = TABLE_MISS, **fields: int) -> Setup:
        match = Match.of(MatchField(F[name], value) for name, value in fields.items())
        self.pipeline.table(table_id).add(FlowEntry(priority, match, instructions, cookie=table_id))
        return self

    def group(self, kind: GroupType, *buckets: Bucket) -> Setup:
        self.pipeline.groups.add(GroupEntry(len(self.pipeline.groups) + 1, kind, buckets))
        return self

    def translate(self, key: int | None = None, live: tuple[int, ...] = ()) -> Translation:
        return translate(self.pipeline, key_of() if key is None else key, None, live.__contains__)


def apply(*actions: Action) -> Setup:
    return Setup(ApplyActions(actions))


def write(*actions: Action) -> Setup:
    return Setup(WriteActions(actions))


def all_of(*buckets: Bucket, key: int | None = None) -> Translation:
    """The only thing done: an ALL group."""
    return write(Group(1)).group(ALL, *buckets).translate(key)


def fast(actions: tuple[DatapathAction, ...]) -> bool:
    return not compile_actions(actions, {1: 0, 2: 1}).flags & MegaflowFlag.PUNT
