"""What holds for every packet: nothing raises, what is set reads back, right checksums stay right and wrong ones as wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from vectors import frames
from vectors.frames import Sample
from vectors.packets import PACKETS
from vectors.strategies import SETTABLE, TAG_TYPES, actions, backbone_frames, packets, samples, set_fields, stacks

from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, PopMpls, PopPbb, PushMpls, PushPbb, SetField
from appliance.model.fields import BY_NAME, KEY_MASK, LAYERS, VLAN_TCI, Field, Layer
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PopTag, PushTag
from appliance.model.tunnel import TUNNEL_FIELDS
from appliance.packet import checksum, mpls
from appliance.packet.execute import INVALID_TTL, execute
from appliance.packet.parse import parse

OUT = Forward(1)
STRUCTURAL = {"eth_type", "ip_proto", "icmpv4_type", "icmpv4_code", "icmpv6_type", "icmpv6_code"}
"""Setting these changes which headers there are."""
PLAIN = tuple(field for field in SETTABLE if field.name not in STRUCTURAL)
PSEUDO = ("ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst", "ip_proto")


def _key_after(frame: bytes, *done: DatapathAction) -> int:
    (emission,) = execute(frame, (*done, OUT), 1)
    return parse(emission.frame, 1, *emission.tunnel).key


def _after(frame: bytes, *done: DatapathAction, partial: bool = False) -> bytes:
    emissions = execute(frame, (*done, OUT), 1, partial_checksum=partial)
    return emissions[-1].frame


@given(packets())
def test_parse_never_raises_and_fills_the_key_only(frame: bytes) -> None:
    parsed = parse(frame, 1)
    assert 0 <= parsed.key <= KEY_MASK
    assert parsed.layers == LAYERS.get(parsed.key)
    for offset in (parsed.eth_type_offset, parsed.ip_proto_offset, parsed.l4_offset, parsed.nd_lladdr_offset):
        assert offset < max(len(frame), 1)


@given(st.binary(max_size=700), st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100]))
def test_parse_never_raises_on_garbage(garbage: bytes, eth_type: int) -> None:
    parse(garbage, 1)
    parse(frames.ethernet(eth_type, garbage), 1)
    parse(frames.ethernet(eth_type, b"\x60" + garbage), 1)
    parse(frames.ethernet(eth_type, b"\x4f" + garbage), 1)


@given(packets(), actions())
def test_execute_never_raises_and_stops_only_at_the_ttl(frame: bytes, done: tuple[DatapathAction, ...]) -> None:
    emissions = execute(frame, done, 1)
    wanted = [action for action in done if isinstance(action, (Forward, Flood, Controller))]
    got = [emission.action for emission in emissions]
    if got and got[-1] is INVALID_TTL:
        assert got[:-1] == wanted[: len(got) - 1]
        assert any(isinstance(action, (DecTtl, DecMplsTtl)) for action in done)
    else:
        assert got == wanted


def _has(frame: bytes, field: Field) -> bool:
    parsed = parse(frame, 1)
    if field.name.startswith("vlan"):
        return parsed.tags > 0
    if field.name.startswith("icmp") and not parsed.layers & (Layer.IPV4 if field.name.startswith("icmpv4") else Layer.IPV6):
        return False
    if field.name in TUNNEL_FIELDS:
        return True
    return len(frame) >= 14 if not field.layer else bool(parsed.layers & field.layer)


@given(packets(), set_fields(PLAIN))
def test_set_field_sets_the_field_and_nothing_else_of_the_key(frame: bytes, action: SetField) -> None:
    key = parse(frame, 1).key
    expected = action.field.put(key, action.value) if _has(frame, action.field) else key
    assert _key_after(frame, action) == expected


@given(packets(), set_fields(tuple(BY_NAME[name] for name in sorted(STRUCTURAL))))
@example(next(v.frame for v in PACKETS if v.name == "nine headers"), SetField(BY_NAME["ip_proto"], 6))
def test_set_field_that_changes_the_headers(frame: bytes, action: SetField) -> None:
    """What it sets is there afterwards, unless the new headers are others: a tag, an extension header."""
    after = _after(frame, action)
    if not _has(frame, action.field):
        assert after == frame
        return
    if action.field.name == "eth_type":
        assume(action.value not in TAG_TYPES)
    if action.field.name == "ip_proto":
        assume(action.value not in (0, 43, 44, 51, 60))
    assert action.field.get(parse(after, 1).key) == action.value
    assert len(after) == len(frame)


@given(packets(), set_fields())
def test_set_field_twice_is_once(frame: bytes, action: SetField) -> None:
    assume(action.field.name not in ("eth_type", "ip_proto"))  # the headers behind may be others the second time
    once = _after(frame, action)
    assert _after(once, action) == once


@given(packets(min_size=14), st.sampled_from(TAG_TYPES), st.integers(0, 0xFFFF))
def test_push_then_pop_is_identity(frame: bytes, tpid: int, tci: int) -> None:
    pushed = _after(frame, PushTag(tpid, tci))
    assert len(pushed) == len(frame) + 4
    assert VLAN_TCI.get(parse(pushed, 1).key) == tci | 0x1000
    assert _after(pushed, PopTag()) == frame
    assert _after(frame, PushTag(tpid, tci), PopTag()) == frame


@given(packets())
def test_pop_then_push_is_identity(frame: bytes) -> None:
    tagged = parse(frame, 1).tags > 0
    popped = _after(frame, PopTag())
    if not tagged:
        assert popped == frame
        return
    tpid, tci = (int.from_bytes(frame[at : at + 2], "big") for at in (12, 14))
    assert _after(popped, PushTag(tpid, tci)) == frame


_CHANGES = actions(max_size=4, outputs=False, controller=False) | actions(
    max_size=4, outputs=False, controller=False, encapsulations=True
)


@given(packets(), _CHANGES, _CHANGES)
def test_actions_in_one_go_or_in_two(frame: bytes, first: tuple[DatapathAction, ...], second: tuple[DatapathAction, ...]) -> None:
    """An action depends on the frame as it is then, and on nothing else: no state survives that a fresh parse would not find."""
    between = execute(frame, (*first, OUT), 1)[-1]
    assume(between.action is OUT)
    assert execute(frame, (*first, *second, OUT), 1) == execute(between.frame, (*second, OUT), 1, tunnel=between.tunnel)


# ── MPLS and PBB ───────────────────────────────────────────────────────────────────────────────────────────────────────
_MPLS_TYPES = st.sampled_from((0x8847, 0x8848))
MPLS_HEADER = frames.ethernet(0x8847, b"")


def _first_type(frame: bytes) -> int:
    return int.from_bytes(frame[12:14], "big")


@given(packets(min_size=14), _MPLS_TYPES)
def test_push_then_pop_mpls_is_identity(frame: bytes, ethertype: int) -> None:
    pushed = _after(frame, PushMpls(ethertype))
    parsed = parse(pushed, 1)
    assert len(pushed) == len(frame) + 4
    assert parsed.layers == Layer.MPLS
    assert (_first_type(pushed), parsed.tags) == (ethertype, 0)
    assert _after(pushed, PopMpls(_first_type(frame))) == frame


@given(packets(min_size=14), _MPLS_TYPES)
def test_what_a_pushed_mpls_entry_copies(frame: bytes, ethertype: int) -> None:
    """Label, traffic class and TTL of MPLS, or the TTL of IP, or 0; the bottom is where MPLS does not follow at once."""
    before, after = parse(frame, 1), parse(_after(frame, PushMpls(ethertype)), 1)
    for name in ("mpls_label", "mpls_tc"):
        assert BY_NAME[name].get(after.key) == (BY_NAME[name].get(before.key) if before.layers & Layer.MPLS else 0)
    ttl = "mpls_ttl" if before.layers & Layer.MPLS else "ip_ttl"
    assert BY_NAME["mpls_ttl"].get(after.key) == BY_NAME[ttl].get(before.key)
    directly = before.layers & Layer.MPLS and not before.tags
    assert BY_NAME["mpls_bos"].get(after.key) == (0 if directly else 1)


@given(stacks(), st.integers(0, 0xFFFF))
def test_pop_mpls_takes_four_bytes_off_and_sets_the_type(frame: bytes, ethertype: int) -> None:
    parsed = parse(frame, 1)
    popped = _after(frame, PopMpls(ethertype))
    if not parsed.layers & Layer.MPLS:  # behind three tags
        assert popped == frame
        return
    at = parsed.eth_type_offset
    assert popped == frame[:at] + ethertype.to_bytes(2, "big") + frame[at + 6 :]


@given(packets(min_size=14))
def test_push_then_pop_pbb_is_identity(frame: bytes) -> None:
    pushed = _after(frame, PushPbb(0x88E7))
    before, after = parse(frame, 1), parse(pushed, 1)
    assert (after.layers, after.tags, pushed[18:]) == (Layer.PBB, 0, frame)
    assert pushed[:12] == frame[:12]
    assert BY_NAME["pbb_isid"].get(after.key) == (BY_NAME["pbb_isid"].get(before.key) if before.layers & Layer.PBB else 0)
    assert pushed[14] == BY_NAME["vlan_pcp"].get(before.key) << 5
    assert _after(pushed, PopPbb()) == frame
    others = (SetField(BY_NAME["eth_dst"], 1), SetField(BY_NAME["eth_src"], 2), SetField(BY_NAME["pbb_isid"], 3))
    assert _after(frame, PushPbb(0x88E7), *others, PopPbb()) == frame


@given(backbone_frames())
def test_pop_pbb_leaves_the_customers_frame_behind_the_tags(frame: bytes) -> None:
    tags = parse(frame, 1).tags * 4
    customer = frame[18 + tags :]
    assert _after(frame, PopPbb()) == customer[:12] + frame[12 : 12 + tags] + customer[12:]
    assert _after(frame, *[PopTag()] * (tags // 4), PopPbb()) == customer


@given(stacks(), st.integers(0, 255))
def test_dec_mpls_ttl(frame: bytes, ttl: int) -> None:
    frame = _after(frame, SetField(BY_NAME["mpls_ttl"], ttl))
    (emission,) = execute(frame, (DecMplsTtl(), OUT), 1)
    if not parse(frame, 1).layers & Layer.MPLS:
        assert (emission.action, emission.frame) == (OUT, frame)
    elif ttl <= 1:
        assert (emission.action, emission.frame) == (INVALID_TTL, frame)
    else:
        assert (emission.action, emission.frame) == (OUT, _after(frame, SetField(BY_NAME["mpls_ttl"], ttl - 1)))


@given(samples(), st.integers(0, 0xFFFFFFFF), st.booleans())
def test_copying_a_ttl_between_mpls_and_ip(sample: Sample, entry: int, outwards: bool) -> None:
    """As setting it would, whole checksums included."""
    entry |= 0x100
    header = MPLS_HEADER + entry.to_bytes(4, "big")
    ip_ttl = sample.frame[sample.l3 + (8 if sample.version == 4 else 7)]
    action = CopyTtlOut() if outwards else CopyTtlIn()
    got = _after(header + sample.frame[sample.l3 :], action)
    if outwards:
        assert got == MPLS_HEADER + (entry & ~0xFF | ip_ttl).to_bytes(4, "big") + sample.frame[sample.l3 :]
    else:
        assert got == header + _after(sample.frame, SetField(BY_NAME["ip_ttl"], entry & 0xFF))[sample.l3 :]


@given(packets(min_size=14))
def test_a_copied_ttl_copied_back_changes_nothing(frame: bytes) -> None:
    """Nor does it twice; and it changes a TTL and IPv4's checksum alone, if anything."""
    for there, back in ((CopyTtlOut(), CopyTtlIn()), (CopyTtlIn(), CopyTtlOut())):
        once = _after(frame, there)
        assert len(once) == len(frame)
        assert sum(one != other for one, other in zip(frame, once, strict=True)) <= 3
        assert _after(once, there, back) == once


# ── checksums ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _relocated(sample: Sample, frame: bytes, done: tuple[DatapathAction, ...]) -> Sample:
    """``sample`` with the frame that actions made of it, which put no header elsewhere; checksums as they are."""
    moved = replace(sample, frame=frame)
    for action in done:
        if isinstance(action, SetField) and action.field.name == "ip_proto":
            moved = replace(moved, pseudo_proto=action.value)
    return moved


@given(samples(), st.lists(set_fields(PLAIN), max_size=5).map(tuple))
def test_right_checksums_stay_right(sample: Sample, done: tuple[SetField, ...]) -> None:
    after = _relocated(sample, _after(sample.frame, *done), done)
    assert after.frame.hex() == after.finished().frame.hex()


@given(samples(), st.integers(0, 255))
def test_the_checksum_follows_ip_proto(sample: Sample, proto: int) -> None:
    action = SetField(BY_NAME["ip_proto"], proto)
    after = _relocated(sample, _after(sample.frame, action), (action,))
    assert after.frame.hex() == after.finished().frame.hex()


@given(samples(protos=(1, 58)), st.integers(0, 255), st.integers(0, 255))
def test_the_checksum_follows_icmp_type_and_code(sample: Sample, kind: int, code: int) -> None:
    version = "icmpv4" if sample.version == 4 else "icmpv6"
    after = _after(sample.frame, SetField(BY_NAME[f"{version}_type"], kind), SetField(BY_NAME[f"{version}_code"], code))
    assert after[sample.l4 : sample.l4 + 2] == bytes((kind, code))
    assert after.hex() == replace(sample, frame=after).finished().frame.hex()


@given(samples(), st.integers(0, 255))
def test_dec_ttl(sample: Sample, ttl: int) -> None:
    frame = _after(sample.frame, SetField(BY_NAME["ip_ttl"], ttl))
    (emission,) = execute(frame, (DecTtl(), OUT), 1)
    if ttl <= 1:
        assert (emission.action, emission.frame) == (INVALID_TTL, frame)
    else:
        assert emission.action is OUT
        assert emission.frame == _after(frame, SetField(BY_NAME["ip_ttl"], ttl - 1))
        assert emission.frame == replace(sample, frame=emission.frame).finished().frame


@given(samples(protos=(6, 17, 58, 1)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.lists(set_fields(PLAIN), max_size=4))
def test_wrong_checksums_stay_as_wrong(sample: Sample, l4_field: int, ip_field: int, done: list[SetField]) -> None:
    """The distance from the right value, as ones-complement numbers, is that of before; a UDP checksum of none stays none."""
    at = sample.l4 + frames.CHECKSUM_AT[sample.proto]
    wrong = bytearray(sample.frame)
    wrong[at : at + 2] = l4_field.to_bytes(2, "big")
    if sample.version == 4:
        wrong[sample.l3 + 10 : sample.l3 + 12] = ip_field.to_bytes(2, "big")
    after = _after(bytes(wrong), *done)
    right = replace(sample, frame=after).finished().frame
    if sample.proto == 17 and l4_field == 0:
        assert after[at : at + 2] == b"\0\0"
    else:
        assert _distance(after, right, at) == _distance(bytes(wrong), sample.frame, at)
    if sample.version == 4:
        assert _distance(after, right, sample.l3 + 10) == _distance(bytes(wrong), sample.frame, sample.l3 + 10)


def _distance(one: bytes, other: bytes, at: int) -> int:
    return (int.from_bytes(one[at : at + 2], "big") - int.from_bytes(other[at : at + 2], "big")) % 0xFFFF


@given(samples(protos=(132,)), st.integers(1, 0xFFFFFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_wrong_sctp_checksum_stays_as_wrong(sample: Sample, field: int, src: int, dst: int) -> None:
    at = sample.l4 + 8
    wrong = sample.frame[:at] + field.to_bytes(4, "big") + sample.frame[at + 4 :]
    after = _after(wrong, SetField(BY_NAME["sctp_src"], src), SetField(BY_NAME["sctp_dst"], dst))
    right = replace(sample, frame=after).finished().frame
    error = int.from_bytes(wrong[at : at + 4], "big") ^ int.from_bytes(sample.frame[at : at + 4], "big")
    assert int.from_bytes(after[at : at + 4], "big") ^ int.from_bytes(right[at : at + 4], "big") == error


@given(samples(protos=(6, 17)), st.lists(set_fields(PLAIN), max_size=5))
def test_rewriting_a_partial_checksum_and_finishing_it(sample: Sample, done: list[SetField]) -> None:
    """In either order: rewrite the partial packet and finish it, or rewrite the finished one."""
    assume(sample.final_dst is None)
    partial = sample.partial().frame
    rewritten = _after(partial, *done, partial=True)
    assert checksum.complete(rewritten, parse(rewritten, 1)) == _after(sample.frame, *done)


@given(samples())
def test_finishing_a_finished_checksum_changes_nothing(sample: Sample) -> None:
    assert checksum.complete(sample.frame, parse(sample.frame, 1)) == sample.frame


@given(
    st.one_of(packets(), samples().map(lambda sample: sample.frame), samples(protos=(6, 17)).map(lambda one: one.partial().frame))
)
def test_what_may_not_be_partial_is_not(frame: bytes) -> None:
    assert checksum.may_be_partial(frame) or mpls.finished(frame, parse(frame, 1)) == frame


@given(packets())
def test_complete_never_raises_and_keeps_the_length(frame: bytes) -> None:
    assert len(checksum.complete(frame, parse(frame, 1))) == len(frame)


@given(
    st.binary(max_size=100),
    st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)), max_size=8),
    st.binary(max_size=101),
)
def test_update_is_a_fresh_sum(before: bytes, words: list[tuple[int, int]], behind: bytes) -> None:
    before = before[: len(before) & ~1]
    old, new = (b"".join(pair[which].to_bytes(2, "big") for pair in words) for which in (0, 1))
    was, now = (frames.plain_sum(before + part + behind) ^ 0xFFFF for part in (old, new))
    updated = checksum.update(was, int.from_bytes(old, "big"), int.from_bytes(new, "big"))
    assert updated % 0xFFFF == now % 0xFFFF
    assert checksum.ones_complement_sum(before + old + behind) % 0xFFFF == (was ^ 0xFFFF) % 0xFFFF


@pytest.mark.parametrize("name", TUNNEL_FIELDS)
def test_the_tunnel_is_kept_out_of_the_frame(name: str) -> None:
    frame = PACKETS[-1].frame
    assert _after(frame, SetField(BY_NAME[name], 5)) == frame
