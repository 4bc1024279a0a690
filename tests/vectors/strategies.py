"""Hypothesis strategies: frames worth parsing, and lists of datapath actions worth executing.

``samples()``  IP packets with right checksums whose structure is known (``frames.Sample``)
``packets()``  any bytes, most of them nearly a packet: every layer, wrong checksums, cut off, flipped bytes, garbage
``actions()``  lists of datapath actions, in any order
``whole()``    the same as translations make them, with meters, queues, copies and groups
``long()``     so many that they take several slots
"""

from __future__ import annotations

from hypothesis import strategies as st
from vectors import frames
from vectors.frames import Sample

from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, Meter, PopMpls, PopPbb, PushMpls, PushPbb, SetField, SetQueue
from appliance.model.fields import BY_NAME, MAX_HEADER_BYTES, VLAN_PRESENT, Field
from appliance.model.megaflow import (
    Clone,
    Controller,
    DatapathAction,
    DecTtl,
    Failover,
    Flood,
    Forward,
    PacketInReason,
    PopTag,
    PushTag,
    Select,
    Way,
)

SETTABLE: tuple[Field, ...] = tuple(field for field in BY_NAME.values() if field.settable)
TAG_TYPES = (0x8100, 0x88A8)
ETH_TYPES = (0x0800, 0x86DD, 0x0806, 0x8847, 0x8848, 0x88E7, 0x8100, 0x88A8, 0x88B5, 0x0600, 0x05FF, 46)
IP_PROTOS = (1, 6, 17, 58, 132, 1, 6, 17, 58, 132, 0, 43, 44, 50, 51, 59, 60, 47, 255)
EXTENSIONS = (0, 43, 44, 51, 60)


def _integers(bits: int) -> st.SearchStrategy[int]:
    """Any value, and often one at the edge, where sums turn over."""
    top = (1 << bits) - 1
    return st.one_of(st.sampled_from((0, 1, top, top - 1, top >> 1)), st.integers(0, top))


def _bytes(size: int) -> st.SearchStrategy[bytes]:
    return st.one_of(st.sampled_from((bytes(size), b"\xff" * size)), st.binary(min_size=size, max_size=size))


_tag = st.tuples(st.sampled_from(TAG_TYPES), _integers(16))
_two_tags = st.one_of(st.just(()), st.tuples(_tag), st.tuples(_tag, _tag))
_tags = st.one_of(_two_tags, _two_tags, _two_tags, st.tuples(_tag, _tag, _tag))
_payloads = st.binary(max_size=40)


@st.composite
def _layer4(draw: st.DrawFn, proto: int) -> bytes:
    """A header of the protocol, whole, with payload; its checksum field is 0."""
    src, dst = draw(_integers(16)), draw(_integers(16))
    if proto == 6:
        return frames.tcp(src, dst, flags=draw(_integers(12)), payload=draw(_payloads))
    if proto == 17:
        return frames.udp(src, dst, payload=draw(_payloads))
    if proto == 132:
        return frames.sctp(src, dst, payload=draw(_payloads))
    if proto == 58 and draw(st.booleans()):
        return draw(_neighbour_discovery())
    if proto in (1, 58):
        kind = draw(st.one_of(st.sampled_from((8, 128, 135, 136)), _integers(8)))
        return frames.icmp(kind, draw(_integers(8)), payload=draw(_payloads))
    return draw(_payloads)


@st.composite
def _neighbour_discovery(draw: st.DrawFn) -> bytes:
    options = draw(st.lists(st.tuples(st.sampled_from((1, 2, 14)), st.sampled_from((1, 1, 1, 2, 0)), _bytes(6)), max_size=6))
    made = (frames.lladdr_option(kind, address, length) for kind, length, address in options)
    return frames.nd(draw(st.sampled_from((135, 136))), draw(_bytes(16)), *made, code=draw(st.sampled_from((0, 0, 0, 1))))


@st.composite
def samples(draw: st.DrawFn, *, protos: tuple[int, ...] = (6, 17, 132, 1, 58, 58, 47), fragments: bool = False) -> Sample:
    """A whole IPv4 or IPv6 packet, at most two tags, options or extension headers, with right checksums.

    With ``fragments``, some are first fragments: then their checksums are as wrong as those of a part of a packet are.
    """
    version = draw(st.sampled_from((4, 6)))
    proto = draw(st.sampled_from([p for p in protos if p != (58 if version == 4 else 1)]))
    tags = draw(_two_tags)
    body = draw(_layer4(proto))
    l3 = 14 + 4 * len(tags)
    final_dst = None
    more = draw(st.booleans()) if fragments else False
    if version == 4:
        options = bytes([1]) * (4 * draw(st.sampled_from((0, 0, 0, 1, 10))))
        packet = frames.ipv4(
            proto,
            body,
            src=draw(_bytes(4)),
            dst=draw(_bytes(4)),
            tos=draw(_integers(8)),
            ttl=draw(_integers(8)),
            options=options,
            fragment=0x2000 if more else draw(st.sampled_from((0, 0x4000))),
        )
        l4 = l3 + 20 + len(options)
    else:
        numbers = tuple(draw(st.lists(st.sampled_from(EXTENSIONS), max_size=4)))
        first, headers = frames.chain(numbers, proto, units=draw(st.integers(0, 2)), fragment=1 if more else 0)
        if 43 in numbers:
            final_dst = draw(_bytes(16))
        packet = frames.ipv6(
            first,
            headers + body,
            src=draw(_bytes(16)),
            dst=draw(_bytes(16)),
            tclass=draw(_integers(8)),
            flabel=draw(_integers(20)),
            hop_limit=draw(_integers(8)),
        )
        l4 = l3 + 40 + len(headers)
    frame = frames.ethernet(0x0800 if version == 4 else 0x86DD, packet, tags, draw(_bytes(6)), draw(_bytes(6)))
    return Sample(frame, version, l3, l4, proto, final_dst=final_dst).finished()


@st.composite
def _ip_of_any_kind(draw: st.DrawFn) -> bytes:
    """IPv4 or IPv6 with any protocol, fragment, chain of extension headers and checksum."""
    proto = draw(st.sampled_from(IP_PROTOS))
    body = bytearray(draw(_layer4(proto)))
    at = frames.CHECKSUM_AT.get(proto)
    if at is not None and len(body) >= at + 2:
        body[at : at + 2] = draw(_bytes(2))
    if draw(st.booleans()):
        fragment = draw(st.one_of(st.sampled_from((0, 0x2000, 0x4000, 0x1FFF, 1)), _integers(16)))
        options = bytes(4 * draw(st.sampled_from((0, 0, 1, 10))))
        packet = bytearray(
            frames.ipv4(proto, bytes(body), src=draw(_bytes(4)), dst=draw(_bytes(4)), options=options, fragment=fragment)
        )
        packet[1], packet[8] = draw(_integers(8)), draw(_integers(8))
        packet[10:12] = draw(_bytes(2))
        return frames.ethernet(0x0800, bytes(packet), draw(_tags))
    numbers = tuple(draw(st.lists(st.sampled_from((*EXTENSIONS, 50, 59)), max_size=10)))
    # Now and then headers so long that the chain ends about MAX_HEADER_BYTES.
    longest = MAX_HEADER_BYTES // 8 // max(1, len(numbers))
    units = draw(st.one_of(st.integers(0, 3), st.integers(max(0, longest - 8), longest)))
    fragment = draw(st.one_of(st.sampled_from((0, 0, 1, 8, 0xFFF8)), _integers(16)))
    first, headers = frames.chain(numbers, proto, units=units, fragment=fragment)
    packet = bytearray(frames.ipv6(first, headers + bytes(body), src=draw(_bytes(16)), dst=draw(_bytes(16))))
    packet[0] = 0x60 | draw(_integers(4))
    packet[1:4] = draw(_bytes(3))
    packet[7] = draw(_integers(8))
    return frames.ethernet(0x86DD, bytes(packet), draw(_tags))


_mpls_types = st.sampled_from((0x8847, 0x8848))


@st.composite
def stacks(draw: st.DrawFn) -> bytes:
    """MPLS: one to three entries with the bottom-of-stack bit where it belongs, and IP, a frame or anything behind them."""
    entries = [draw(_integers(32)) & ~0x100 for _ in range(draw(st.integers(1, 3)))]
    entries[-1] |= 0x100
    sample = draw(samples())
    payload = draw(st.sampled_from((sample.frame[sample.l3 :], sample.frame[sample.l3 :], sample.frame, sample.payload())))
    return frames.ethernet(draw(_mpls_types), b"".join(entry.to_bytes(4, "big") for entry in entries) + payload, draw(_tags))


@st.composite
def _tunnels(draw: st.DrawFn) -> bytes:
    """IP in IP."""
    inner, version = draw(samples()), draw(st.sampled_from((4, 6)))
    number = draw(st.sampled_from((4 if inner.version == 4 else 41, 4, 41)))
    packet = inner.frame[inner.l3 :]
    if version == 4:
        options = bytes([1]) * (4 * draw(st.sampled_from((0, 0, 1))))
        fragment = draw(st.sampled_from((0, 0, 0x2000, 1)))
        packet = frames.ipv4(number, packet, ttl=draw(_integers(8)), options=options, fragment=fragment)
    else:
        first, headers = frames.chain(tuple(draw(st.lists(st.sampled_from(EXTENSIONS), max_size=2))), number)
        packet = frames.ipv6(first, headers + packet, hop_limit=draw(_integers(8)))
    return frames.ethernet(0x0800 if version == 4 else 0x86DD, packet, draw(_tags))


@st.composite
def backbone_frames(draw: st.DrawFn) -> bytes:
    """PBB: an I-TAG of any bits, and the customer's frame."""
    i_tag = draw(_integers(32)).to_bytes(4, "big")
    customer = draw(st.one_of(samples().map(lambda sample: sample.frame), stacks()))
    return frames.ethernet(0x88E7, i_tag + customer, draw(_two_tags), draw(_bytes(6)), draw(_bytes(6)))


@st.composite
def _others(draw: st.DrawFn) -> bytes:
    """ARP, MPLS, PBB, IP in IP, and any type with anything behind it."""
    kind = draw(st.sampled_from(("arp", "mpls", "pbb", "stack", "backbone", "tunnel", "any", "any")))
    if kind == "arp":
        arp = frames.arp(draw(_integers(16)), draw(_bytes(6)), draw(_bytes(4)), draw(_bytes(6)), draw(_bytes(4)))
        return frames.ethernet(0x0806, arp, draw(_tags))
    if kind == "any":
        return frames.ethernet(
            draw(st.one_of(st.sampled_from(ETH_TYPES), _integers(16))), draw(st.binary(max_size=60)), draw(_tags)
        )
    if kind in ("stack", "backbone", "tunnel"):
        return draw({"stack": stacks(), "backbone": backbone_frames(), "tunnel": _tunnels()}[kind])
    eth_type = 0x88E7 if kind == "pbb" else draw(_mpls_types)
    return frames.ethernet(eth_type, draw(st.binary(min_size=4, max_size=40)), draw(_tags))


@st.composite
def packets(draw: st.DrawFn, *, min_size: int = 0) -> bytes:
    """Any frame, of ``min_size`` bytes at least."""
    frame = bytearray(
        draw(
            st.one_of(
                samples(fragments=True).map(lambda sample: sample.frame),
                samples(fragments=True).map(lambda sample: sample.frame),
                _ip_of_any_kind(),
                _ip_of_any_kind(),
                _others(),
                st.binary(max_size=120),
            )
        )
    )
    damage = draw(st.sampled_from(("none", "none", "none", "cut", "flip", "pad")))
    if damage == "cut" and frame:
        del frame[draw(st.integers(0, len(frame) - 1)) :]
    elif damage == "flip" and frame:
        for _ in range(draw(st.integers(1, 4))):
            frame[draw(st.integers(0, len(frame) - 1))] = draw(_integers(8))
    elif damage == "pad":
        frame += bytes(draw(st.integers(1, 50)))
    return bytes(frame.ljust(min_size, b"\0"))


@st.composite
def set_fields(draw: st.DrawFn, fields: tuple[Field, ...] = SETTABLE) -> SetField:
    """Any value for one of ``fields``; ``vlan_vid`` with OFPVID_PRESENT, as OpenFlow has it."""
    field = draw(st.sampled_from(fields))
    values = _integers(field.bits)
    if field.name == "eth_type":
        values = st.one_of(st.sampled_from(ETH_TYPES), values)
    elif field.name == "ip_proto":
        values = st.one_of(st.sampled_from(IP_PROTOS), values)
    elif field.name in ("icmpv6_type", "icmpv4_type"):
        values = st.one_of(st.sampled_from((135, 136, 128)), values)
    elif field.name == "vlan_vid":
        values = values.map(lambda value: value | VLAN_PRESENT)
    return SetField(field, draw(values))


_ports = st.integers(1, 4095)
_OUTPUTS: tuple[st.SearchStrategy[DatapathAction], ...] = (st.builds(Forward, _ports), st.builds(Flood))
_CONTROLLER: st.SearchStrategy[DatapathAction] = st.builds(
    Controller,
    st.sampled_from((PacketInReason.NO_MATCH, PacketInReason.ACTION)),
    _integers(8),
    _integers(64),
    _integers(16),
    _integers(64),
)


_mpls: st.SearchStrategy[DatapathAction] = st.one_of(
    st.builds(PushMpls, _mpls_types),
    st.builds(PushMpls, _mpls_types),
    st.builds(PopMpls, st.sampled_from((0x0800, 0x86DD, 0x8847, 0x8848, 0x0806, 0x8100))),
    st.builds(DecMplsTtl),
    st.builds(CopyTtlOut),
    st.builds(CopyTtlIn),
    set_fields(tuple(BY_NAME[name] for name in ("mpls_label", "mpls_tc", "mpls_bos", "mpls_ttl"))),
)
_encapsulations: st.SearchStrategy[DatapathAction] = st.one_of(_mpls, st.builds(PushPbb, st.just(0x88E7)), st.builds(PopPbb))


@st.composite
def actions(
    draw: st.DrawFn,
    *,
    fields: tuple[Field, ...] = SETTABLE,
    max_size: int = 8,
    controller: bool = True,
    outputs: bool = True,
    encapsulations: bool | None = None,
    mpls: bool = False,
    copies: bool = False,
) -> tuple[DatapathAction, ...]:
    """Up to ``max_size`` actions in any order. ``fields`` are set; ``controller`` and ``outputs`` say where to send.

    ``encapsulations`` are those of MPLS, PBB and copied TTLs: None puts them in one list of eight. ``mpls``: many of MPLS.
    ``copies``: with some that have changes of their own, and queues.
    """
    one: list[st.SearchStrategy[DatapathAction]] = [
        set_fields(fields),
        set_fields(fields),
        st.builds(
            PushTag, st.sampled_from(TAG_TYPES), st.builds(lambda pcp, vid: pcp << 13 | vid, st.integers(0, 7), _integers(12))
        ),
        st.builds(PopTag),
        st.builds(DecTtl),
    ]
    if outputs:
        one += _OUTPUTS
    if controller:
        one.append(_CONTROLLER)
    if encapsulations or (encapsulations is None and draw(st.integers(0, 7)) == 7):
        one += [_encapsulations, _encapsulations, _encapsulations]
    if mpls:
        one += [_mpls, _mpls, _mpls, _mpls]
    if copies:
        one += [st.builds(Clone, actions(max_size=4)), st.builds(SetQueue, st.integers(0, 3))]
    return tuple(draw(st.lists(st.one_of(one), max_size=max_size)))


METERS = (1, 2, 3)
"""One that passes everything, one that remarks everything, one that drops everything."""
WATCHED = (0, 2, 3)
"""Ports whose liveness decides: none, and one that is live and one that is not, as the test has it."""


@st.composite
def _ways(draw: st.DrawFn) -> tuple[Way, ...]:
    buckets = draw(st.lists(actions(max_size=4, copies=True), min_size=1, max_size=3))
    return tuple(Way(at, made, draw(st.integers(1, 9)), draw(st.sampled_from(WATCHED))) for at, made in enumerate(buckets))


@st.composite
def whole(draw: st.DrawFn) -> tuple[DatapathAction, ...]:
    """Meters, any actions with copies among them, and maybe a group that chooses."""
    meters = draw(st.lists(st.sampled_from(METERS), max_size=2)) if draw(st.integers(0, 3)) == 3 else []
    middle = draw(actions(max_size=6, copies=True))
    choice: st.SearchStrategy[DatapathAction] = st.one_of(
        st.builds(Select, st.just(1), _ways()), st.builds(Failover, st.just(1), _ways())
    )
    return (*map(Meter, meters), *middle, *([draw(choice)] if draw(st.booleans()) else []))


@st.composite
def long(draw: st.DrawFn) -> tuple[DatapathAction, ...]:
    """The same copy and changes again and again: more than a slot has room for. No header comes to light."""
    fields = tuple(field for field in SETTABLE if field.name not in ("eth_type", "ip_proto", "pbb_isid"))
    before, copy, behind = (draw(actions(fields=fields, max_size=most, encapsulations=False)) for most in (8, 5, 3))
    return (*before, *(Clone(copy), *behind) * draw(st.integers(2, 10)), Forward(2))
