"""Whatever a peer sends and whatever comes in on a port: effects, not exceptions."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import test_switch_tiers as tiers
from hypothesis import event, given
from support import pipeline_cases as cases
from switch_shell import Shell

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    Group,
    Instruction,
    Meter,
    Output,
    PopMpls,
    PopPbb,
    PushMpls,
    PushPbb,
    PushVlan,
    SetField,
    SetMplsTtl,
    SetQueue,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import OXM_FIELDS
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import Upcall, UpcallReason
from appliance.model.ports import PortNo
from appliance.openflow.codec import decode, encode
from appliance.openflow.constants import HEADER_BYTES
from appliance.openflow.errors import ProtocolError
from appliance.openflow.messages import (
    AggregateStatsRequest,
    BarrierRequest,
    Bucket,
    DescRequest,
    Error,
    Experimenter,
    ExperimenterMultipart,
    FeaturesRequest,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowStatsRequest,
    FragmentHandling,
    GetAsyncRequest,
    GetConfigRequest,
    GroupMod,
    GroupModCommand,
    GroupStatsRequest,
    GroupType,
    Message,
    MeterBandDrop,
    MeterBandDscpRemark,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MeterStatsRequest,
    MultipartRequest,
    PacketOut,
    PortMod,
    PortStatsRequest,
    QueueGetConfigRequest,
    QueueStatsRequest,
    Role,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableFeatures,
    TableFeaturesRequest,
    TableMod,
    TableStatsRequest,
)
from appliance.packet.parse import parse
from appliance.switch.events import MessageReceived, Quiet, Tick, Upcalls

PORTS = (0, 1, 2, 3, 4, 4095, 4096, *PortNo)
TABLES = (0, 1, 2, 3, 253, 254, 255)


def some_action(rnd: Random) -> Action:
    if rnd.random() < 0.7:
        return cases.action(rnd)
    field = rnd.choice(OXM_FIELDS)
    number = rnd.randrange(3)
    return rnd.choice(
        (
            Output(rnd.choice(PORTS), rnd.choice((0, 1, 0xFFFF))),
            SetField(field, rnd.getrandbits(field.bits)),
            Group(number),
            SetQueue(number),
            PushVlan(number),
            PushMpls(0x8847),
            PopMpls(0x0800),
            PushPbb(0x88E7),
            PopPbb(),
            SetMplsTtl(number),
            DecMplsTtl(),
            CopyTtlIn(),
            CopyTtlOut(),
        )
    )


def some_actions(rnd: Random) -> tuple[Action, ...]:
    return tuple(some_action(rnd) for _ in range(rnd.randrange(4)))


def some_match(rnd: Random) -> Match:
    return Match.of(MatchField(field, rnd.getrandbits(field.bits)) for field in rnd.sample(OXM_FIELDS, rnd.randrange(3)))


def some_flow_mod(rnd: Random) -> FlowMod:
    instructions: list[Instruction] = list(cases.flow_entry(rnd, rnd.randrange(4), 1).instructions)
    if rnd.random() < 0.3:
        actions = some_actions(rnd)
        instructions = [rnd.choice((ApplyActions(actions), WriteActions(actions), Meter(1), ClearActions(), WriteMetadata(1, 1)))]
    return FlowMod(
        rnd.randrange(3),
        rnd.randrange(3),
        rnd.choice(TABLES) if rnd.random() < 0.3 else rnd.randrange(3),
        rnd.choice(tuple(FlowModCommand)),
        rnd.randrange(3),
        rnd.randrange(3),
        rnd.choice((0, 1, 0xFFFF)),
        rnd.choice((0xFFFFFFFF, 0xFFFFFFFF, 1)),
        rnd.choice(PORTS),
        rnd.choice((0xFFFFFFFF, 1)),
        FlowModFlags(rnd.randrange(32)),
        some_match(rnd),
        tuple(instructions),
    )


def some_message(rnd: Random) -> Message:
    number = rnd.choice((0, 1, 5, 0xFFFFFFFF))
    port = rnd.choice(PORTS)
    if rnd.random() < 0.5:
        return some_flow_mod(rnd)
    return rnd.choice(
        (
            PacketOut(rnd.choice((0xFFFFFFFF, 1)), port, some_actions(rnd), cases.frame(rnd)[: rnd.choice((0, 13, 14, 99))]),
            PacketOut(in_port=PortNo.CONTROLLER, actions=cases.actions(rnd), data=cases.frame(rnd)),
            PacketOut(in_port=1, actions=(Output(PortNo.TABLE), *cases.actions(rnd)), data=cases.frame(rnd)),
            PortMod(port, bytes(6), 1, 1),  # type: ignore[arg-type]
            GroupMod(
                rnd.choice(tuple(GroupModCommand)), rnd.choice(tuple(GroupType)), number, (Bucket(actions=some_actions(rnd)),)
            ),
            replace(tiers.group_mod(rnd), group_id=rnd.randrange(3)),
            MeterMod(rnd.choice(tuple(MeterModCommand)), MeterFlags(rnd.randrange(16)), number, (MeterBandDrop(1),)),
            replace(tiers.meter_mod(rnd), bands=(rnd.choice((MeterBandDrop(1), MeterBandDscpRemark(1, 1, 1))),)),
            tiers.flow_mod(rnd),
            TableMod(rnd.choice(TABLES), number),
            SetConfig(rnd.choice(tuple(FragmentHandling)), rnd.randrange(0xFFFF)),
            SetAsync((rnd.randrange(8), 0), (rnd.randrange(8), 0), (rnd.randrange(16), 0)),
            RoleRequest(rnd.choice((*Role, Role.EQUAL, Role.EQUAL)), number),
            QueueGetConfigRequest(port),
            *(kind() for kind in (FeaturesRequest, BarrierRequest, GetConfigRequest, GetAsyncRequest)),
            Experimenter(number, number),
            Error(1, 1),
            MultipartRequest(
                rnd.choice(
                    (
                        DescRequest(),
                        FlowStatsRequest(rnd.choice(TABLES), port, number, 1, rnd.randrange(2), some_match(rnd)),
                        AggregateStatsRequest(rnd.choice(TABLES), port, number, 1, rnd.randrange(2), some_match(rnd)),
                        TableStatsRequest(),
                        PortStatsRequest(port),
                        QueueStatsRequest(port, number),
                        GroupStatsRequest(number),
                        MeterStatsRequest(number),
                        TableFeaturesRequest((TableFeatures(1),)),
                        TableFeaturesRequest(tuple(TableFeatures(at) for at in range(3) if rnd.random() < 0.8)),
                        ExperimenterMultipart(number, number),
                    )
                )
            ),
        )
    )


def damaged(rnd: Random, raw: bytes) -> bytes:
    """With a few bytes changed behind the header."""
    changed = bytearray(raw)
    for _ in range(rnd.randrange(1, 4)):
        if len(changed) > HEADER_BYTES:
            changed[rnd.randrange(HEADER_BYTES, len(changed))] = rnd.choice((0, 1, 4, 8, 0xFF, rnd.randrange(256)))
    return bytes(changed)


@given(cases.RANDOMS)
def test_any_messages_and_packets(rnd: Random) -> None:
    shell = Shell(fail_mode=rnd.choice(("secure", "standalone")), max_megaflows=rnd.choice((3, 1000)))
    for _ in range(40):
        shell.now += rnd.choice((0, 0, 0.5, 20))
        if rnd.random() < 0.5:
            raw = encode(some_message(rnd))
            if rnd.random() < 0.3:
                raw = damaged(rnd, raw)
            try:
                message = decode(raw)
            except ProtocolError:
                event("not decoded")
                continue
            before = len(shell.messages)
            shell.step(MessageReceived(rnd.choice((1, 1, 1, 9)), message, raw))
            refused = any(isinstance(answer, Error) for _, answer in shell.messages[before:])
            event(f"{type(message).__name__} {'refused' if refused else 'accepted'}")
        elif rnd.random() < 0.7:
            frame = cases.frame(rnd, everything=True)
            in_port = rnd.choice((1, 2, 3))
            if rnd.random() < 0.7:
                shell.inject(in_port, frame)
            else:
                key = rnd.choice((parse(frame, in_port).key, cases.flow_key(rnd)))
                megaflow_id = rnd.choice((0, 1, 2, 999, *shell.switch.megaflow_ids))
                gso_size = rnd.choice((0, 0, 10))
                shell.step(Upcalls((Upcall(in_port, rnd.choice(tuple(UpcallReason)), megaflow_id, key, frame, gso_size),)))
        else:
            shell.step(rnd.choice((Tick(), Quiet())))
    assert {megaflow.id for megaflow in shell.datapath.megaflows} == set(shell.switch.megaflow_ids)
