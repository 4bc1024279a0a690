"""Plug-ins in eBPF: those that are shipped and a few others, run on single frames in both tiers; and those that cannot work."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from support.fast_path import FastPath

from appliance.config import find_plugins
from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.build import SOURCES as BPF_PROG
from appliance.datapath.compile import compile_actions
from appliance.datapath.layout import MegaflowFlag
from appliance.datapath.loader import Sizes
from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME, IN_PORT, PLUGIN_BITS
from appliance.model.megaflow import CallPlugin, DatapathAction, DropReason, Forward, PushTag, UpcallReason
from appliance.model.ports import Hook

pytestmark = pytest.mark.root

PORT = 7
TIMESTAMP, SYN_GUARD, TAIL, DSCP, MAC = 1, 2, 9, 10, 11
HEAD = "from appliance.model.plugin import Argument, Plugin, PluginAction, PluginMatch\nPLUGIN = Plugin("
SOURCES = {
    # a match: the last byte of a UDP packet's first four, and whether there is a VLAN tag
    "tail": (
        f"{HEAD}id={TAIL}, match=PluginMatch(bits=9, at=4))",
        """
static __always_inline u32 plugin_match(struct packet *p, struct __sk_buff *skb)
{
	u32 word = 0;

	if (has_layer(p, LAYER_UDP))
		l4_load(p, skb, 8, &word, sizeof(word));
	return bpf_ntohl(word) & 0xff | (p->key.f.vlan_tci ? 0x100 : 0);
}
""",
    ),
    # another match, which runs behind that: the last byte of the destination address
    "mac": (
        f"{HEAD}id={MAC}, match=PluginMatch(bits=8, at=16))",
        """
static __always_inline u32 plugin_match(struct packet *p, struct __sk_buff *skb)
{
	return p->key.f.eth_dst[5] | 0xffffff00; /* what is more than its bits is cut off */
}
""",
    ),
    # an action that changes a header: the DSCP of IPv4, which the key has too
    "dscp": (
        f"{HEAD}id={DSCP}, action=PluginAction((Argument('dscp', 1),), writes=('ip_dscp',)), counters=('set', 'other'))",
        """
static __always_inline int plugin_action(struct packet *p, struct __sk_buff *skb, const void *arguments)
{
	u8 tos = *(const u8 *)arguments << 2;

	if (!has_layer(p, LAYER_IPV4)) {
		plugin_count(1);
		return PLUGIN_PASSES;
	}
	bpf_l3_csum_replace(skb, p->network + 10, bpf_htons(p->key.f.ip_tos), bpf_htons(tos), 2);
	bpf_skb_store_bytes(skb, p->network + 1, &tos, 1, 0);
	p->key.f.ip_tos = tos;
	plugin_count(0);
	return PLUGIN_PASSES;
}
""",
    ),
}


def write(folder: Path, name: str, declaration: str, source: str) -> None:
    (folder / f"{name}.py").write_text(declaration)
    (folder / f"{name}.c").write_text('#include "plugin.h"\n' + source)


@pytest.fixture(scope="module")
def fast_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastPath]:
    folder = tmp_path_factory.mktemp("plugins")
    for name, (declaration, source) in SOURCES.items():
        write(folder, name, declaration, source)
    made = FastPath(PORT, find_plugins(["timestamp", "syn_guard", f"{folder}/"]))
    assert sorted(made.datapath.plugins.loaded) == [TIMESTAMP, SYN_GUARD, TAIL, DSCP, MAC], made.datapath.plugins.states()
    yield made
    made.close()


def frame(*layers: Packet) -> bytes:
    built = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for layer in layers:
        built /= layer
    return bytes(built)


def run(fast_path: FastPath, raw: bytes, *actions: DatapathAction, network_tag: bool = False) -> list[bytes]:
    """The frames that leave by the fast path, the second time: the megaflow is in the cache then."""
    assert not compile_actions(actions).flags & (MegaflowFlag.PUNT | MegaflowFlag.XDP)
    megaflow = fast_path.install(actions)
    try:
        fast_path.execute_once(raw, Hook.TC, network_tag)
        result = fast_path.execute_once(raw, Hook.TC, network_tag)
    finally:
        fast_path.datapath.remove([megaflow])
    assert not result.upcalls
    return [output.frame for output in result.outputs]


def apart(fast_path: FastPath, raw: bytes, action: CallPlugin) -> bytes | None:
    """The same by the slow path."""
    return fast_path.datapath.plugins.run(action.plugin_id, action.arguments, raw, PORT)


def counted(fast_path: FastPath, name: str) -> dict[str, int]:
    (state,) = [state for state in fast_path.datapath.plugins.states() if state.file.name == name]
    return dict(state.counted)


# ── timestamps ─────────────────────────────────────────────────────────────────────────────────────────────────────────
IP4, IP6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
DATAGRAM = UDP(sport=5, dport=9)
RECORD = struct.Struct(">QII")


def stamp(hop: int, offset: int) -> CallPlugin:
    return CallPlugin(TIMESTAMP, struct.pack(">IH6x", hop, offset))


@pytest.mark.parametrize(
    "layers",
    [(IP4, DATAGRAM), (IP6, DATAGRAM), (Dot1Q(vlan=3), IP4, DATAGRAM), (IP4, UDP(sport=5, dport=9, chksum=0))],
    ids=["IPv4", "IPv6", "VLAN", "without a checksum"],
)
def test_a_timestamp(fast_path: FastPath, layers: tuple[Packet, ...]) -> None:
    """In both tiers the record is there, nothing else has changed but the checksum, and that is right."""
    raw = frame(*layers, Raw(bytes(range(64))))
    action = stamp(0xA0B0C0D0, 8)
    before = time.clock_gettime_ns(time.CLOCK_TAI)
    frames = run(fast_path, raw, action, Forward(2))
    if layers[0].name == "802.1Q":
        frames += run(fast_path, raw, action, Forward(2), network_tag=True)
    slow = apart(fast_path, raw, action)
    assert slow is not None
    for got in (*frames, slow):
        at = len(raw) - 64 + 8
        moment, hop, port = RECORD.unpack_from(got, at)
        assert before <= moment <= time.clock_gettime_ns(time.CLOCK_TAI)
        assert (hop, port) == (0xA0B0C0D0, PORT)
        payload = bytes(range(8)) + RECORD.pack(moment, hop, port) + bytes(range(24, 64))
        assert got == frame(*layers, Raw(payload))


@pytest.mark.parametrize(
    ("layers", "offset"),
    [
        ((IP4, DATAGRAM, Raw(bytes(23))), 8),
        ((IP4, DATAGRAM, Raw(b"12")), 2),  # padded to 60 bytes: there is room in the frame, but not in the datagram
        ((IP4, TCP(sport=5, dport=9), Raw(bytes(64))), 8),
        ((Raw(bytes(64)),), 0),
        ((IP4, DATAGRAM, Raw(bytes(64))), 0xFFFE),
    ],
)
def test_packets_without_room_for_a_timestamp_stay_as_they_are(
    fast_path: FastPath, layers: tuple[Packet, ...], offset: int
) -> None:
    raw = frame(*layers).ljust(60, b"\0")
    before = counted(fast_path, "timestamp")
    assert run(fast_path, raw, stamp(1, offset), Forward(2)) == [raw]
    assert apart(fast_path, raw, stamp(1, offset)) == raw
    after = counted(fast_path, "timestamp")
    assert after["stamped"] == before["stamped"]
    assert after["no_room"] - before["no_room"] >= 2


def test_changes_around_a_plugin_and_checksums_that_are_due(fast_path: FastPath) -> None:
    """What was set before is in the packet and in its checksums when the plug-in comes; what comes after is done too."""
    new = {"ipv4_src": 0x0A090909, "udp_dst": 4000}
    actions = (
        *(SetField(BY_NAME[name], value) for name, value in new.items()),
        stamp(1, 0),
        SetField(BY_NAME["udp_src"], 77),
        stamp(2, 16),
        PushTag(0x8100, 9),
        Forward(2),
    )
    raw = frame(IP4, DATAGRAM, Raw(bytes(40)))
    (got,) = run(fast_path, raw, *actions)
    payload = got[-40:]
    assert [RECORD.unpack_from(payload, at)[1] for at in (0, 16)] == [1, 2]
    assert got == frame(Dot1Q(vlan=9), IP(src="10.9.9.9", dst="10.0.0.2"), UDP(sport=77, dport=4000), Raw(payload))


def test_more_ops_than_slots_hold_are_the_slow_paths() -> None:
    sets = tuple(SetField(BY_NAME["eth_src"], number) for number in range(130))
    for before in range(0, 120, 7):
        for after in range(max(0, 115 - before), 125 - before):
            compiled = compile_actions((*sets[:before], stamp(1, 0), *sets[:after], Forward(2)))
            assert bool(compiled.flags & MegaflowFlag.PUNT) is (before + 3 + after + 2 > 125), (before, after)


@pytest.mark.parametrize(("before", "all_sets"), [*((before, 26) for before in range(27)), *((at, 57) for at in range(24, 33))])
def test_the_last_op_of_full_slots_is_done(fast_path: FastPath, before: int, all_sets: int) -> None:
    sets = tuple(SetField(BY_NAME["eth_src"], number) for number in range(1, 60))
    raw = frame(IP4, DATAGRAM, Raw(bytes(40)))
    actions = (*sets[:before], stamp(1, 0), *sets[: all_sets - before], SetField(BY_NAME["eth_dst"], 5), Forward(2))
    (got,) = run(fast_path, raw, *actions)
    assert got[:6] == bytes.fromhex("000000000005")


# ── the guard ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def guard(rate: int, burst: int, prefix4: int = 32, prefix6: int = 128) -> CallPlugin:
    return CallPlugin(SYN_GUARD, struct.pack(">IHBB4x", rate, burst, prefix4, prefix6))


def syn(source: str, flags: str = "S") -> bytes:
    network = IPv6(src=source, dst="fd00::2") if ":" in source else IP(src=source, dst="10.0.0.2")
    return frame(network, TCP(sport=5, dport=80, flags=flags))


def test_syns_of_one_source_beyond_its_rate_are_dropped_in_both_tiers(fast_path: FastPath) -> None:
    action = guard(1, 6)
    start = time.monotonic()
    before, drops = counted(fast_path, "syn_guard"), fast_path.datapath.drops()[DropReason.PLUGIN]
    passed = 0
    for _ in range(4):
        passed += apart(fast_path, syn("10.1.0.1"), action) is not None
    megaflow = fast_path.install((action, Forward(2)))
    results = [fast_path.run(syn("10.1.0.1"), Hook.TC)[0] for _ in range(5)]
    elapsed = time.monotonic() - start
    statistics = fast_path.datapath.statistics([megaflow])[megaflow]
    assert fast_path.execute_once(syn("10.1.0.2"), Hook.TC).outputs, "another source"
    assert fast_path.execute(syn("10.1.0.1", "SA"), Hook.TC).outputs, "no SYN"
    assert fast_path.execute(syn("10.1.0.1", "A"), Hook.TC).outputs
    fast_path.datapath.remove([megaflow])
    after = counted(fast_path, "syn_guard")
    assert passed == 4
    assert statistics.packets == 5
    assert 6 <= passed + 5 - statistics.dropped[0][0] <= 6 + elapsed, "the burst, and one a second"
    assert fast_path.datapath.drops()[DropReason.PLUGIN] - drops == statistics.dropped[0][0]
    assert after["dropped"] - before["dropped"] == statistics.dropped[0][0]
    assert after["sources"] - before.get("sources", 0) == 2
    assert len(results) == 5


@pytest.mark.parametrize(
    ("prefix4", "prefix6", "sources", "let_through"),
    [
        (24, 64, ("10.2.0.1", "10.2.0.200", "10.2.1.1"), [True, False, True]),
        (0, 64, ("10.3.0.1", "99.2.0.200"), [True, False]),
        (27, 64, ("10.4.0.1", "10.4.0.31", "10.4.0.32"), [True, False, True]),
        (32, 64, ("fd00:0:0:1::1", "fd00:0:0:1:ffff::1", "fd00:0:0:2::1"), [True, False, True]),
        (32, 50, ("fd01:0:0:1::1", "fd01:0:0:3fff::1", "fd01:0:0:4000::1"), [True, False, True]),
        (32, 128, ("fd02::1", "fd02::2", "fd02::1"), [True, True, False]),
    ],
)
def test_prefixes(fast_path: FastPath, prefix4: int, prefix6: int, sources: tuple[str, ...], let_through: list[bool]) -> None:
    action = guard(1, 1, prefix4, prefix6)
    assert [apart(fast_path, syn(source), action) is not None for source in sources] == let_through


# ── a match, and an action that writes a field ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("network_tag", [False, True])
def test_the_bits_of_a_match_are_in_the_key(fast_path: FastPath, network_tag: bool) -> None:
    raw = frame(*((Dot1Q(vlan=3),) if network_tag else ()), IP4, DATAGRAM, Raw(b"\x01\x02\x03\x7f"))
    result = fast_path.execute(raw, Hook.TC, network_tag)
    assert PLUGIN_BITS.get(result.key) == (0x0217F0 if network_tag else 0x0207F0)
    assert [PLUGIN_BITS.get(upcall.key) for upcall in result.upcalls] == [PLUGIN_BITS.get(result.key)]
    assert fast_path.datapath.plugins.bits(raw, PORT) == PLUGIN_BITS.get(result.key)
    assert fast_path.datapath.plugins.bits(frame(Raw(bytes(60))), PORT) == 0x020000


def test_xdp_leaves_megaflows_with_them_to_tc(fast_path: FastPath) -> None:
    """It runs no plug-ins: to it all bits are 0."""
    bits = PLUGIN_BITS
    mask = IN_PORT.mask | bits.put(0, 0xFFFF)
    wanted = [frame(IP4, DATAGRAM, Raw(bytes((0, 0, 0, last)) + bytes(30))) for last in (0, 5)]
    ids = [
        fast_path.install((Forward(port),), bits.put(IN_PORT.put(0, PORT), number << 4), mask) for number, port in ((0, 2), (5, 3))
    ]
    try:
        for raw, port in zip(wanted, (2, 3), strict=True):
            assert fast_path.execute(raw, Hook.XDP).outputs == ()
            assert [output.action for output in fast_path.execute(raw, Hook.TC).outputs] == [Forward(port)]
        missed = fast_path.execute(frame(IP4, DATAGRAM, Raw(b"\0\0\0\x06")), Hook.TC)
        assert [upcall.reason for upcall in missed.upcalls] == [UpcallReason.MISS]
    finally:
        fast_path.datapath.remove(ids)


def test_an_action_that_writes_a_field(fast_path: FastPath) -> None:
    raw = frame(IP4, DATAGRAM, Raw(bytes(40)))
    action = CallPlugin(DSCP, bytes((46, *bytes(11))))
    expected = frame(IP(src="10.0.0.1", dst="10.0.0.2", tos=46 << 2), DATAGRAM, Raw(bytes(40)))
    before = counted(fast_path, "dscp")
    assert run(fast_path, raw, action, Forward(2)) == [expected]
    assert apart(fast_path, raw, action) == expected
    more = (action, SetField(BY_NAME["ip_ecn"], 1), SetField(BY_NAME["udp_dst"], 53), Forward(2))
    other = frame(IP(src="10.0.0.1", dst="10.0.0.2", tos=46 << 2 | 1), UDP(sport=5, dport=53), Raw(bytes(40)))
    assert run(fast_path, raw, *more) == [other]
    after = counted(fast_path, "dscp")
    assert after["set"] - before["set"] >= 3
    assert after["other"] == before["other"]


def test_long_frames_in_the_slow_path(fast_path: FastPath) -> None:
    """The kernel makes packets of about one page for test runs: of longer ones the plug-in sees the beginning."""
    raw = frame(IP4, DATAGRAM, Raw(bytes(8900)))
    got = apart(fast_path, raw, stamp(3, 0))
    assert got is not None
    assert RECORD.unpack_from(got, 42)[1] == 3
    assert got == frame(IP4, DATAGRAM, Raw(got[42:]))


# ── what the documentation says ────────────────────────────────────────────────────────────────────────────────────────
def test_the_examples_in_the_readme_work(tmp_path: Path) -> None:
    text = (BPF_PROG / "plugins" / "README.md").read_text()
    (action, match), (declaration, *_) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("c", "python"))
    (tmp_path / "port_limit.c").write_text(action)
    (tmp_path / "port_limit.py").write_text(declaration)
    write(tmp_path, "first", f"{HEAD}id=10, match=PluginMatch(bits=8, at=0))", match)
    datapath = BpfDatapath(Sizes(megaflows=64, upcall_pages=64), plugins=find_plugins([f"{tmp_path}/"]))
    try:
        assert [state.fault for state in datapath.plugins.states()] == ["", ""]
        limit = struct.pack(">H10x", 3)
        tried = [frame(IP4, TCP(sport=5, dport=port)) for port in (1, 2, 3, 4, 2, 9)]
        assert [datapath.plugins.run(9, limit, raw, PORT) is not None for raw in tried] == [True, True, True, False, True, False]
        assert dict(datapath.plugins.states()[0].counted) == {"passed": 4, "dropped": 2, "pairs": 1}
        assert datapath.plugins.bits(frame(IP4, DATAGRAM, Raw(b"xyz")), PORT) == ord("x")
    finally:
        datapath.close()


# ── plug-ins that cannot work ──────────────────────────────────────────────────────────────────────────────────────────
BROKEN = {
    "spelt_wrong": (
        "action",
        "return PLUGIN_PASES;",
        r"spelt_wrong\.c:\d+:\d+: error: use of undeclared identifier 'PLUGIN_PASES'",
    ),
    "calls_nothing": (
        "action",
        "return no_such_helper(p);",
        r"calls_nothing\.c:\d+:\d+: error: (implicit declaration of|call to undeclared) function",  # clang 14, clang 18
    ),
    "reads_wild": (
        "action",
        "return *(volatile int *)(long)skb->data;",
        r"cannot load ofswitch_action [\s\S]*invalid access to packet",
    ),
    "runs_on": (
        "match",
        'for (;;)\n\t\tasm volatile("");',
        r"cannot load ofswitch_match [\s\S]*(back-edge|infinite loop|unreachable)",
    ),
}


def test_those_that_clang_or_the_verifier_refuses_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, (name, (kind, body, _)) in enumerate(BROKEN.items(), 20):
        declared = "action=PluginAction()" if kind == "action" else f"match=PluginMatch(bits=1, at={number})"
        start = "int plugin_action(struct packet *p, struct __sk_buff *skb, const void *arguments)"
        if kind == "match":
            start = "u32 plugin_match(struct packet *p, struct __sk_buff *skb)"
        write(tmp_path, name, f"{HEAD}id={number}, {declared})", f"static __always_inline {start}\n{{\n\t{body}\n}}\n")
    write(tmp_path, "good", *SOURCES["tail"])
    datapath = BpfDatapath(Sizes(megaflows=64, upcall_pages=64), plugins=find_plugins([f"{tmp_path}/", "timestamp"]))
    try:
        states = {state.file.name: state.fault for state in datapath.plugins.states()}
        assert sorted(datapath.plugins.loaded) == [TIMESTAMP, TAIL]
        for name, (_, _, words) in BROKEN.items():
            assert states.pop(name) != ""
            (logged,) = [record.getMessage() for record in caplog.records if f"plug-in {name} is left out" in record.getMessage()]
            assert re.search(words, logged), logged
        assert states == {"good": "", "timestamp": ""}
        assert datapath.plugins.run(20, bytes(12), frame(IP4), PORT) is None
        assert datapath.plugins.bits(frame(IP4, DATAGRAM, Raw(b"\0\0\0\1")), PORT) == 0x10
    finally:
        datapath.close()
