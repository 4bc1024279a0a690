"""The parts of the conformance runner that need no switch: selection, planning, the tester's counters, tables."""

from __future__ import annotations

import struct
from pathlib import Path

from conformance import cases, results
from conformance.cases import Case
from conformance.outcome import FAILED, NOT_RUN, PASSED, Outcome
from conformance.wire import Filter, _with_tag


def _case(name: str, seconds: float = 1.0, kind: str = cases.EGRESS) -> Case:
    file, _, index = name.partition("#")
    return Case(file, int(index), f"what {name} is", kind, seconds, frozenset())


def test_os_ken_ships_all_cases_of_openflow_13() -> None:
    found = cases.load(cases.directory("13"))
    assert len(found) == len({case.name for case in found}) == 991
    assert sum(case.kind == cases.TABLE_MISS for case in found) == 238
    (remark,) = cases.select(found, only=["^meter/02_DSCP_REMARK_00_KBPS_00_1M.json#0 "])
    assert remark.needs >= {"OFPMeterMod", "OFPMeterBandDscpRemark", "OFPInstructionMeter", "match:in_port"}
    assert (remark.area, remark.kind, remark.seconds) == ("meter", cases.THROUGHPUT, 30.1)
    (masked,) = cases.select(found, only=["^match/02_METADATA_Mask.json#0 "])
    assert masked.needs >= {"match:metadata/mask", "OFPInstructionWriteMetadata", "OFPInstructionGotoTable"}


def test_selection_is_by_name_description_and_kind() -> None:
    some = [_case("match/a.json#0"), _case("match/a.json#1", kind=cases.TABLE_MISS), _case("group/b.json#0")]
    assert cases.select(some) == tuple(some)
    assert cases.select(some, only=["^match/"], skip=["#0"]) == (some[1],)
    assert cases.select(some, only=["what group", "a.json#1"]) == (some[1], some[2])
    assert cases.select(some, kinds=[cases.EGRESS]) == (some[0], some[2])


def test_shards_take_about_equal_time_and_every_case_once() -> None:
    some = [_case(f"m/a.json#{index}", seconds) for index, seconds in enumerate([30, 1, 1, 30, 1, 29, 1])]
    shares = cases.split(some, 3)
    assert sorted(case.name for share in shares for case in share) == sorted(case.name for case in some)
    assert sorted(sum(case.seconds for case in share) for share in shares) == [31, 31, 31]
    assert len(cases.split(some[:2], 5)) == 2


def test_the_testers_flows_match_port_ethertype_and_dscp() -> None:
    ipv4 = struct.pack("!HBB", 0x0800, 0x45, 20 << 2 | 3)
    ipv6 = struct.pack("!HI", 0x86DD, 6 << 28 | (20 << 2 | 3) << 20 | 0xFFFFF)[:4]
    for head in (ipv4, ipv6):
        (eth_type,) = struct.unpack_from("!H", head)
        assert Filter(in_port=2, eth_type=eth_type, ip_dscp=20).takes(2, head)
        assert not Filter(in_port=3).takes(2, head)
        assert not Filter(in_port=2, eth_type=0x0806).takes(2, head)
        assert not Filter(in_port=2, eth_type=eth_type, ip_dscp=18).takes(2, head)
    assert not Filter(ip_dscp=0).takes(2, b"\x08\x06\x00\x01"), "an ARP packet has none"


def test_a_tag_that_the_kernel_took_off_is_put_back() -> None:
    frame = bytes(range(12)) + b"\x08\x00payload"
    valid = struct.pack("=IIIHHHH", 1 << 4 | 1 << 6, 0, 0, 0, 0, 0x6064, 0x88A8)
    untagged = struct.pack("=IIIHHHH", 1, 0, 0, 0, 0, 0, 0)
    assert _with_tag(frame, [(263, 8, valid)]) == bytes(range(12)) + b"\x88\xa8\x60\x64\x08\x00payload"
    assert _with_tag(frame, [(263, 8, untagged)]) == frame


def test_failures_are_counted_by_cause() -> None:
    assert results.cause("Failed to add flows: OFPErrorMsg[type=0x02, code=0x00]") == (
        "Failed to add flows: OFPET_BAD_ACTION OFPBAC_BAD_TYPE"
    )
    assert results.cause("Received incorrect packet: ipv4(ttl=63)") == results.cause("Received incorrect packet: vlan(vid=1)")
    assert results.cause("Received incorrect packet-in: SW[dpid=1]") != results.cause("Received incorrect packet: x")


def test_a_result_file_keeps_the_other_targets_column(tmp_path: Path) -> None:
    some = [_case("match/a.json#0"), _case("match/a.json#1")]
    good = {case.name: Outcome(case.name, PASSED, seconds=0.5) for case in some}
    bad = good | {some[1].name: Outcome(some[1].name, FAILED, "Received incorrect packet: x", 0.25, 2, {"sent": "00"})}
    results.write(tmp_path, "13", some, results.Column("ovs", "how", bad))
    data, text = results.write(tmp_path, "13", some, results.Column("ofswitch", "how else", good))
    columns = results.read(data)
    assert columns["ovs"] == results.Column("ovs", "how", bad)
    assert columns["ofswitch"].outcomes == good
    assert "| **all** | 2 | 1 | 2 |" in text.read_text()
    assert "| 1 | Received incorrect packet | match/a 1 |" in text.read_text()
    assert results.worse(good, bad) == ["match/a.json#1"]
    assert results.worse(bad, good) == []
    missing = {some[0].name: Outcome(some[0].name, NOT_RUN)}
    assert results.worse(good, missing) == ["match/a.json#0"]
