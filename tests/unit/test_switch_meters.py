"""Meters: how they come, change and go, and that both tiers' counts add up."""

from __future__ import annotations

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import Action, ApplyActions, GotoTable, Group, Meter, Output, PushPbb
from appliance.model.megaflow import MeterBand as Band
from appliance.model.megaflow import MeterConfig as Config
from appliance.model.megaflow import UpcallReason
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPM_ALL, OFPM_CONTROLLER, OFPM_MAX, OFPM_SLOWPATH
from appliance.openflow.errors import ErrorType, MeterModFailed
from appliance.openflow.messages import (
    BarrierRequest,
    Bucket,
    BucketCounter,
    Error,
    FlowMod,
    FlowModFlags,
    FlowRemoved,
    FlowRemovedReason,
    FlowStatsReply,
    FlowStatsRequest,
    GroupMod,
    GroupModCommand,
    GroupStatsReply,
    GroupStatsRequest,
    GroupType,
    MeterBand,
    MeterBandDrop,
    MeterBandDscpRemark,
    MeterBandExperimenter,
    MeterBandStats,
    MeterBandType,
    MeterConfig,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeatures,
    MeterFeaturesRequest,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MeterStats,
    MeterStatsReply,
    MeterStatsRequest,
    MultipartReply,
    MultipartRequest,
    MultipartRequestBody,
    PacketIn,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.packet.parse import parse
from appliance.switch.effects import RemoveMegaflows, RemoveMeter, SetMeter

ADD, MODIFY, DELETE = MeterModCommand
KBPS, PKTPS, BURST, STATS = MeterFlags.KBPS, MeterFlags.PKTPS, MeterFlags.BURST, MeterFlags.STATS
FAILED = ErrorType.METER_MOD_FAILED


def frame(src: int = 1) -> bytes:
    return frames.ethernet(0x1234, bytes(46), dst=mac(0xD0), src=mac(src))


def ip_frame(dscp: int) -> bytes:
    raw = frames.ethernet(0x0800, frames.ipv4(17, frames.udp(1, 2), tos=dscp << 2))
    return frames.Sample(raw, 4, 14, 34, 17).finished().frame


def meter(shell: Shell, number: int, *bands: MeterBand, flags: MeterFlags = PKTPS, command: MeterModCommand = ADD) -> None:
    assert not any(isinstance(told, Error) for told in shell.receive(MeterMod(command, flags, number, bands)))


def use(shell: Shell, number: int, *actions: Action, **mod: object) -> None:
    instructions = (Meter(number), ApplyActions(actions or (Output(2),)))
    assert shell.receive(FlowMod(instructions=instructions, **mod)) == []  # type: ignore[arg-type]


def ask(shell: Shell, body: MultipartRequestBody) -> object:
    return shell.ask(MultipartRequest(body), MultipartReply).body


def stats(shell: Shell, number: int = 1) -> MeterStats:
    body = ask(shell, MeterStatsRequest(number))
    assert isinstance(body, MeterStatsReply)
    (found,) = body.entries
    return found


def counts(shell: Shell, number: int = 1) -> tuple[int, list[int]]:
    """Packets in, and of each band. Bytes must go with them: all frames here have 60."""
    found = stats(shell, number)
    assert found.byte_in_count == 60 * found.packet_in_count
    assert all(band.byte_band_count == 60 * band.packet_band_count for band in found.band_stats)
    return found.packet_in_count, [band.packet_band_count for band in found.band_stats]


# ── meter-mods ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_configurations_are_as_sent_and_the_fast_path_is_told() -> None:
    shell = Shell()
    drop, remark = MeterBandDrop(1000, 7), MeterBandDscpRemark(500, 0, 2)
    meter(shell, 5, drop, remark, flags=KBPS | STATS)
    assert shell.effects[-1] == SetMeter(Config(5, False, (Band(1000, 0), Band(500, 0, 2)))), "without BURST a burst means nothing"
    meter(shell, OFPM_MAX, drop, flags=PKTPS | BURST)
    assert shell.effects[-1] == SetMeter(Config(OFPM_MAX, True, (Band(1000, 7),)))
    meter(shell, 1, flags=MeterFlags.NONE)
    assert shell.effects[-1] == SetMeter(Config(1, False, ()))
    reply = ask(shell, MeterConfigRequest())
    first, second, third = (
        MeterConfig(MeterFlags.NONE, 1),
        MeterConfig(KBPS | STATS, 5, (drop, remark)),
        MeterConfig(PKTPS | BURST, OFPM_MAX, (drop,)),
    )
    assert reply == MeterConfigReply((first, second, third))
    assert ask(shell, MeterConfigRequest(5)) == MeterConfigReply((second,))
    meter(shell, 5, remark, flags=KBPS, command=MODIFY)
    assert ask(shell, MeterConfigRequest(5)) == MeterConfigReply((MeterConfig(KBPS, 5, (remark,)),))


def test_features() -> None:
    bands = 1 << MeterBandType.DROP | 1 << MeterBandType.DSCP_REMARK
    assert ask(Shell(), MeterFeaturesRequest()) == MeterFeatures(1024, bands, KBPS | PKTPS | BURST | STATS, 8, 0)


@pytest.mark.parametrize(
    ("mod", "code"),
    [
        (MeterMod(ADD, KBPS, 1), MeterModFailed.METER_EXISTS),
        (MeterMod(ADD, KBPS, OFPM_MAX + 1), MeterModFailed.INVALID_METER),
        (MeterMod(ADD, KBPS, OFPM_CONTROLLER), MeterModFailed.INVALID_METER),
        (MeterMod(ADD, KBPS, OFPM_SLOWPATH), MeterModFailed.INVALID_METER),
        (MeterMod(ADD, KBPS, OFPM_ALL), MeterModFailed.INVALID_METER),
        (MeterMod(MODIFY, KBPS, 2), MeterModFailed.UNKNOWN_METER),
        (MeterMod(MODIFY, KBPS, OFPM_CONTROLLER), MeterModFailed.UNKNOWN_METER),
        (MeterMod(MODIFY, KBPS | PKTPS, 1), MeterModFailed.BAD_FLAGS),
        (MeterMod(MODIFY, KBPS, 1, (MeterBandDrop(5), MeterBandDrop(0))), MeterModFailed.BAD_RATE),
        (MeterMod(MODIFY, KBPS | BURST, 1, (MeterBandDrop(5),)), MeterModFailed.BAD_BURST),
        (MeterMod(MODIFY, KBPS, 1, (MeterBandDscpRemark(5),)), MeterModFailed.BAD_BAND_VALUE),
        (MeterMod(MODIFY, KBPS, 1, (MeterBandExperimenter(5, 0, 9),)), MeterModFailed.BAD_BAND),
        (MeterMod(MODIFY, KBPS, 1, (MeterBandDrop(5),) * 9), MeterModFailed.OUT_OF_BANDS),
    ],
)
def test_refused(mod: MeterMod, code: MeterModFailed) -> None:
    shell = Shell()
    meter(shell, 1, MeterBandDrop(9))
    assert shell.refused(mod) == (FAILED, code)
    assert ask(shell, MeterConfigRequest()) == MeterConfigReply((MeterConfig(PKTPS, 1, (MeterBandDrop(9),)),))


@pytest.mark.parametrize("body", [MeterStatsRequest, MeterConfigRequest])
@pytest.mark.parametrize("number", [2, OFPM_CONTROLLER, OFPM_SLOWPATH])
def test_meters_that_are_not_there(body: type[MeterStatsRequest], number: int) -> None:
    shell = Shell()
    meter(shell, 1)
    assert shell.refused(MultipartRequest(body(number))) == (FAILED, MeterModFailed.UNKNOWN_METER)


def test_flow_entries_go_with_their_meters_before_the_fast_path_loses_it() -> None:
    shell = Shell()
    for number in (1, 2):
        meter(shell, number, MeterBandDrop(1000))
    use(shell, 1, flags=FlowModFlags.SEND_FLOW_REM, priority=2, cookie=1)
    use(shell, 2, priority=1, cookie=2)
    for _ in range(3):
        assert len(shell.inject(1, frame())) == 1
    assert stats(shell).flow_count == 1
    before = len(shell.effects)
    meter(shell, 1, command=DELETE)
    (told,) = shell.told(FlowRemoved)
    assert (told.cookie, told.reason, told.packet_count) == (1, FlowRemovedReason.DELETE, 3)
    kinds = [type(effect) for effect in shell.effects[before:]]
    assert kinds[:2] == [RemoveMegaflows, RemoveMeter]
    flows = ask(shell, FlowStatsRequest())
    assert isinstance(flows, FlowStatsReply)
    assert [flow.cookie for flow in flows.entries] == [2]
    assert shell.inject(1, frame()) == [(2, frame())]
    meter(shell, OFPM_ALL, command=DELETE)
    assert shell.inject(1, frame()) == []
    assert shell.switch.meter_ids == ()


# ── metering ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_packets_are_metered_in_the_fast_path_and_counted_once() -> None:
    shell = Shell()
    meter(shell, 1, MeterBandDrop(10, 5), flags=PKTPS | BURST)
    use(shell, 1)
    left = sum(len(shell.inject(1, frame())) for _ in range(30))
    # The first packet is the slow path's, the others the fast path's, of the same bucket.
    assert left == 5
    assert counts(shell) == (30, [30 - left])
    flows = ask(shell, FlowStatsRequest())
    assert isinstance(flows, FlowStatsReply)
    assert flows.entries[0].packet_count == 30, "also those that the meter dropped"
    shell.now += 0.2
    assert len(shell.inject(1, frame())) == 1
    assert counts(shell)[0] == 31


def test_packets_that_come_up_anyway_are_metered_once() -> None:
    shell = Shell()
    meter(shell, 1, MeterBandDrop(10, 5), flags=PKTPS | BURST)
    use(shell, 1, PushPbb(0x88E7), Output(PortNo.CONTROLLER), Output(2))
    left = sum(len(shell.inject(1, frame())) for _ in range(30))
    assert len(shell.told(PacketIn)) == left == 5
    assert counts(shell) == (30, [30 - left])
    assert shell.switch.upcalls[UpcallReason.ACTION] == left - 1


def test_the_slow_path_meters_what_has_no_megaflow() -> None:
    shell = Shell(capacity=0)
    meter(shell, 1, MeterBandDrop(10, 5), flags=PKTPS | BURST)
    use(shell, 1)
    left = sum(len(shell.inject(1, frame())) for _ in range(30))
    assert left == 5
    assert counts(shell) == (30, [30 - left])


@pytest.mark.parametrize("capacity", [0, 100])
@pytest.mark.parametrize("last", [Output(2), Output(PortNo.CONTROLLER)])
def test_what_a_meter_drops_is_counted_by_nothing_behind_it(capacity: int, last: Output) -> None:
    """Section 5.7: the meter runs first; a packet that it drops reaches no action and no table after it. In every tier."""
    shell = Shell(capacity=capacity)
    for number, burst in ((1, 20), (2, 5)):
        meter(shell, number, MeterBandDrop(1, burst), flags=PKTPS | BURST)
    for number in (7, 8):
        bucket = Bucket(0, actions=(Output(3),))
        assert not shell.receive(GroupMod(GroupModCommand.ADD, GroupType.ALL, number, (bucket,)))
    use_of = {0: (Meter(1), GotoTable(1)), 1: (ApplyActions(()), GotoTable(2)), 2: (Meter(2), ApplyActions((Group(8), last)))}
    for table_id, instructions in use_of.items():
        shell.receive(FlowMod(table_id=table_id, instructions=instructions))
    for _ in range(30):
        shell.inject(1, frame())
    assert counts(shell, 1) == (30, [10])
    assert counts(shell, 2) == (20, [15])
    flows, tables, groups = (ask(shell, body) for body in (FlowStatsRequest(), TableStatsRequest(), GroupStatsRequest(8)))
    assert isinstance(flows, FlowStatsReply)
    assert isinstance(tables, TableStatsReply)
    assert isinstance(groups, GroupStatsReply)
    assert [(flow.packet_count, flow.byte_count) for flow in flows.entries] == [(30, 1800), (20, 1200), (20, 1200)]
    assert [(table.lookup_count, table.matched_count) for table in tables.entries[:4]] == [(30, 30), (20, 20), (20, 20), (0, 0)]
    (found,) = groups.entries
    assert (found.packet_count, found.byte_count, found.bucket_stats) == (5, 300, (BucketCounter(5, 300),))


@pytest.mark.parametrize("capacity", [0, 100])
def test_a_remark_is_seen_by_later_tables(capacity: int) -> None:
    shell = Shell(capacity=capacity)
    meter(shell, 1, MeterBandDscpRemark(1, 1, 1), flags=PKTPS | BURST)
    shell.receive(FlowMod(instructions=(Meter(1), GotoTable(1))))
    shell.receive(FlowMod(table_id=1, instructions=(ApplyActions((Output(2),)),)))
    sent = [frame for _ in range(6) for _, frame in shell.inject(1, ip_frame(0b001010))]
    codes = [(parse(raw, 1).key, raw[15] >> 2) for raw in sent]
    assert [code for _, code in codes][-1] == 0b001100
    assert {code for _, code in codes} == {0b001010, 0b001100}
    found = stats(shell)
    assert found.packet_in_count == 6
    assert found.band_stats[0].packet_band_count == [code for _, code in codes].count(0b001100)


def test_a_meter_that_is_modified_goes_on_counting_and_its_bands_start_anew() -> None:
    shell = Shell()
    meter(shell, 1, MeterBandDrop(1, 1), flags=PKTPS | BURST)
    use(shell, 1)
    for _ in range(20):
        shell.inject(1, frame())
    total, (dropped,) = counts(shell)
    assert total == 20
    assert dropped >= 17
    shell.now += 3
    meter(shell, 1, MeterBandDrop(1, 1), MeterBandDrop(1000, 1000), flags=PKTPS | BURST, command=MODIFY)
    assert counts(shell) == (20, [0, 0])
    shell.receive(BarrierRequest())
    for _ in range(10):
        shell.inject(1, frame())
    total, (low, high) = counts(shell)
    assert (total, high) == (30, 0)
    assert low >= 7
    found = stats(shell)
    assert (found.duration_sec, found.duration_nsec) == (3, 0)
    meter(shell, 1, MeterBandDrop(1, 1), flags=PKTPS | BURST, command=MODIFY)
    assert counts(shell) == (30, [0])


def test_a_meter_that_is_deleted_and_made_again_has_counted_nothing() -> None:
    shell = Shell()
    meter(shell, 1, MeterBandDrop(1000))
    use(shell, 1)
    for _ in range(3):
        shell.inject(1, frame())
    assert counts(shell) == (3, [0])
    meter(shell, 1, command=DELETE)
    meter(shell, 1, MeterBandDrop(1000))
    assert stats(shell) == MeterStats(1, 0, 0, 0, 0, 0, (MeterBandStats(0, 0),))


def test_a_band_that_becomes_another_kind_is_followed() -> None:
    shell = Shell()
    meter(shell, 1, MeterBandDrop(1, 1), flags=PKTPS | BURST)
    use(shell, 1)
    for _ in range(4):
        shell.inject(1, ip_frame(0b001010))
    meter(shell, 1, MeterBandDscpRemark(1, 1, 2), flags=PKTPS | BURST, command=MODIFY)
    sent = [frame for _ in range(8) for _, frame in shell.inject(1, ip_frame(0b001010))]
    assert len(sent) == 8
    assert sent[-1][15] >> 2 == 0b001110
