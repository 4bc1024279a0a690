"""A flow key on its way through the pipeline: what it is now, which bits of the packet it was asked for, and what is still true.

A bit of the key is one of three. It is as it was in the packet: then whoever asks for it makes the megaflow depend on it. It was
*written* by an action: the same for all packets, asking costs nothing. Or it is *stale*: an action changed what the parser would
find there. With its outer tag gone, a packet with three tags shows one that the parser did not reach; a new ``eth_type`` makes
other headers of the same bytes; an MPLS entry or an I-TAG pushed hides all. Asking for a stale bit raises ParseAgainError.

A pushed or popped tag shifts the view of the parser, which reaches MAX_VLAN_TAGS tags. Whether that hides or shows anything depends
on how many tags the packet has, and is looked at only when something needs to know (``settle``).

Invariant: what a method returns or raises depends on no bit of the packet outside ``mask``.
"""

from __future__ import annotations

from typing import NamedTuple

from appliance.model.fields import (
    BY_NAME,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_PBB,
    ETH_TYPE_QINQ,
    ETH_TYPE_VLAN,
    IN_PORT,
    INNER_VLAN_TCI,
    IP_PROTO,
    IP_TTL,
    KEY_MASK,
    LAYERS,
    METADATA,
    MPLS_TTL,
    PLUGIN_BITS,
    TUN_DST,
    TUN_SRC,
    TUNNEL_ID,
    VLAN_PRESENT,
    VLAN_TCI,
    Field,
    Layer,
)

# Plain integers, because ``Field.mask`` is computed each time.
IN_PORT_BITS = IN_PORT.mask
METADATA_BITS = METADATA.mask
CARRIED_BITS = METADATA_BITS | TUNNEL_ID.mask | TUN_SRC.mask | TUN_DST.mask | PLUGIN_BITS.mask
"""What the key has and the frame has not, other than ``in_port``."""
_ETH_TYPE_BITS = ETH_TYPE.mask
IP_TTL_BITS = IP_TTL.mask
MPLS_TTL_BITS = MPLS_TTL.mask
DSCP_BITS = BY_NAME["ip_dscp"].mask
_OUTER = VLAN_TCI.shift
_INNER = INNER_VLAN_TCI.shift
_OUTER_BITS = VLAN_TCI.mask
_INNER_BITS = INNER_VLAN_TCI.mask
_TAGS_BITS = _OUTER_BITS | _INNER_BITS
_TAG = 0xFFFF
HAS_TAG = VLAN_PRESENT << _OUTER
_HAS_INNER_TAG = VLAN_PRESENT << _INNER
_TPIDS = (ETH_TYPE_VLAN, ETH_TYPE_QINQ)


def layer_bits(layers: Layer) -> int:
    """These bits of ``layers`` in the flow key."""
    return int(layers) << LAYERS.shift


def _fields(*names: str) -> int:
    bits = 0
    for name in names:
        bits |= BY_NAME[name].mask
    return bits


_BEHIND_TAGS = KEY_MASK & ~(IN_PORT_BITS | CARRIED_BITS | ETH_DST.mask | ETH_SRC.mask | _OUTER_BITS)
"""What the parser would find differently if there were one tag more or less."""
_ND = layer_bits(Layer.ND | Layer.ND_SLL | Layer.ND_TLL) | _fields("ipv6_nd_target", "ipv6_nd_sll", "ipv6_nd_tll")
_LAYER_4 = (
    _ND
    | layer_bits(Layer.TCP | Layer.UDP | Layer.SCTP | Layer.ICMP)
    | _fields("tcp_src", "tcp_dst", "tcp_flags", "ip_frag", "ipv6_exthdr")
)
_EXTENSION_HEADERS = (0, 43, 44, 51, 60)
"""Values of ``ip_proto`` behind which the parser, in IPv6, looks for another next-header byte."""

_ALWAYS_WRITABLE = IP_TTL_BITS | DSCP_BITS | _fields("mpls_label", "mpls_tc", "mpls_bos", "mpls_ttl", "pbb_isid")
"""Fields that can be written when their value is not known: they are wherever their header is."""

_RESHAPING_FIELDS = frozenset({ETH_TYPE.name, IP_PROTO.name, "icmpv6_type", "icmpv6_code"})
"""Fields that say what headers there are: setting one makes others stale."""


def _stale_after(field: Field, value: int) -> int:
    if field is ETH_TYPE:
        return _BEHIND_TAGS | _OUTER_BITS if value in _TPIDS else _BEHIND_TAGS & ~_ETH_TYPE_BITS
    if field is IP_PROTO:
        return _LAYER_4 | IP_PROTO.mask if value in _EXTENSION_HEADERS else _LAYER_4
    return _ND


class ParseAgainError(Exception):
    """A stale bit is needed: only parsing the frame, as it is now, can tell."""


class _Tag(NamedTuple):
    """A tag of the packet as it is now: its value, which bits of it were written, its shift in the packet's key (-1: not there)."""

    value: int
    written: int
    origin: int


_NO_TAG = _Tag(0, _TAG, -1)
_UNSEEN_TAG = _Tag(0, 0, -1)
"""Behind the tags that the parser reached: nothing depends on it before ``settle`` has said that there is none."""


class Snapshot(NamedTuple):
    """The key at one moment. What of it was known can be said only when it is known what else was asked for."""

    key: int
    written: int
    stale: int
    origins: tuple[int, int] | None
    """Where the tags in the key were in the packet's key; None for where they are."""


def before_actions(key: int) -> Snapshot:
    """Of a key of which nothing was written but metadata."""
    return Snapshot(key, METADATA_BITS, 0, None)


class _State(NamedTuple):
    """All of a TrackedKey that changes, but for ``mask``."""

    key: int
    written: int
    stale: int
    tags: tuple[_Tag, ...] | None
    shift: int
    unsettled: bool


class TrackedKey:
    """``packet`` is the packet's flow key, ``key`` the key now, ``mask`` the bits of ``packet`` that were asked for."""

    __slots__ = ("_shift", "_stale", "_tags", "_unsettled", "_written", "key", "mask", "packet")

    def __init__(self, packet: int, carried: int | None = None) -> None:
        """``carried`` takes the place of metadata and tunnel; without it metadata is 0. Output always depends on ``in_port``."""
        self.packet = packet
        self.key = packet & ~METADATA_BITS if carried is None else packet & ~CARRIED_BITS | carried
        self.mask = IN_PORT_BITS
        self._written = METADATA_BITS
        self._stale = 0
        self._tags: list[_Tag] | None = None
        """From the outside in; None until one is pushed or popped."""
        self._shift = 0
        """Tags pushed less tags popped."""
        self._unsettled = False

    def begin(self, key: int, mask: int) -> None:
        """It has come to be this key by writing nothing but metadata, and was asked for these bits on the way."""
        self.key = key
        self.mask = mask

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def need(self, bits: int) -> None:
        """What happens next depends on these bits of the key."""
        if self._tags is None and not self._stale:
            self.mask |= bits & ~self._written
            return
        if self._unsettled and bits & _BEHIND_TAGS:
            self.settle()
        bits &= ~self._written
        stale = bits & self._stale
        if self._tags is not None and bits & _TAGS_BITS:
            bits = _in_packet(bits, *self._origins(self._tags))
        self.mask |= bits
        if stale:
            raise ParseAgainError

    def has(self, bits: int) -> bool:
        """Whether any of these bits is set, which from now on the megaflow depends on."""
        self.need(bits)
        return bool(self.key & bits)

    def settle(self) -> None:
        """Find out whether the tags pushed and popped hide or show anything: if so, what is behind the tags is stale."""
        if not self._unsettled:
            return
        self._unsettled = False
        more = True
        if self._shift < 0:
            self.mask |= _HAS_INNER_TAG
            more = bool(self.packet & _HAS_INNER_TAG)
            if more:
                self.mask |= _ETH_TYPE_BITS
                more = ETH_TYPE.get(self.packet) in _TPIDS
            if not more and self._tags is not None and len(self._tags) < 2:
                self._tags.append(_NO_TAG)
                self._show_tags(self._tags)
        elif self._shift == 1:
            self.mask |= _HAS_INNER_TAG
            more = bool(self.packet & _HAS_INNER_TAG)
        elif self._shift == 2:
            self.mask |= HAS_TAG
            more = bool(self.packet & HAS_TAG)
        if more:
            self._forget(_BEHIND_TAGS)

    def to_look_up(self) -> tuple[int, int]:
        """The key without what is stale, because which bits a look-up asks for must not depend on bits that nobody knows; and the
        bits that are the same for all packets that agree with this one in ``mask``, as it is so far."""
        self.settle()
        mask = self.mask if self._tags is None else _from_packet(self.mask, *self._origins(self._tags))
        known = mask | self._written
        return (self.key & ~self._stale, known & ~self._stale) if self._stale else (self.key, known)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.key, self._written, self._stale, None if self._tags is None else self._origins(self._tags))

    def known(self, then: Snapshot) -> int:
        """The bits of the key at that moment that are the same for all packets that agree with this one in ``mask``."""
        mask = self.mask if then.origins is None else _from_packet(self.mask, *then.origins)
        return (mask | then.written) & ~then.stale

    def recall(self, then: Snapshot, bits: int) -> None:
        """Make the megaflow depend on these bits of the key as it was at that moment. They must not have been stale."""
        bits &= ~then.written
        self.mask |= bits if then.origins is None else _in_packet(bits, *then.origins)

    def was_written(self, bits: int) -> bool:
        """Whether all of these were, so that they are the same for all packets."""
        return not bits & ~self._written

    def save(self) -> _State:
        """For ``restore``."""
        tags = None if self._tags is None else tuple(self._tags)
        return _State(self.key, self._written, self._stale, tags, self._shift, self._unsettled)

    def restore(self, state: _State) -> None:
        """The key is again as it was then; what was asked for since remains asked for."""
        self.key, self._written, self._stale, tags, self._shift, self._unsettled = state
        self._tags = None if tags is None else list(tags)

    # ── changing ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def write(self, field: Field, value: int) -> bool:
        """Set a field that is there. Returns False if it was set to this value before, so that nothing needs doing.

        (That a field which was asked for has this value is no reason: what is asked for changes with entries that do not matter.)
        """
        bits = field.mask
        if self._unsettled and bits & _BEHIND_TAGS:
            self.settle()
        if bits & self._stale & ~_ALWAYS_WRITABLE:
            raise ParseAgainError
        key = self.key & ~bits | value << field.shift
        if key == self.key and not bits & ~self._written:
            return False
        self.key = key
        self._written |= bits
        self._stale &= ~bits
        if field.name in _RESHAPING_FIELDS:
            self._forget(_stale_after(field, value))
        if self._tags is not None and bits & _OUTER_BITS:
            tag = self._tags[0]
            self._tags[0] = _Tag(key >> _OUTER & _TAG, tag.written | bits >> _OUTER, tag.origin)
        return True

    def write_metadata(self, value: int, mask: int) -> None:
        self.key = self.key & ~(mask << METADATA.shift) | (value & mask) << METADATA.shift

    def changed(self, bits: int) -> None:
        """These bits are no longer what they were, and differ from packet to packet."""
        self._forget(bits)

    def push_tag(self) -> int:
        """Push a tag with VID and PCP of the outermost one, or 0; returns its TCI without VLAN_PRESENT."""
        tci = 0
        if self.has(HAS_TAG):
            self.need(_OUTER_BITS)
            tci = self.outer_tci
        tags = self._all_tags()
        tags.insert(0, _Tag(tci | VLAN_PRESENT, _TAG, -1))
        self._moved(tags, 1)
        return tci

    def pop_tag(self) -> bool:
        """Pop the outermost tag; False if there is none."""
        if not self.has(HAS_TAG):
            return False
        tags = self._all_tags()
        if len(tags) < 2:
            self.need(_INNER_BITS)
        del tags[0]
        self._moved(tags, -1)
        return True

    def push_mpls(self, ethertype: int) -> None:
        """Push an MPLS entry: nothing is seen behind it, and no tag before it. What is in it is not known before it is written."""
        self._encapsulated(ethertype, Layer.MPLS)

    def push_pbb(self) -> None:
        """Push an I-TAG: nothing is seen behind it, and no tag before it. Its I-SID is not known before it is written."""
        self._encapsulated(ETH_TYPE_PBB, Layer.PBB)

    def pop_mpls(self, ethertype: int) -> bool:
        """Pop the outermost MPLS entry; False if there is none."""
        if not self.has(layer_bits(Layer.MPLS)):
            return False
        self.key = ETH_TYPE.put(self.key, ethertype)
        self._written |= _ETH_TYPE_BITS
        self._stale &= ~_ETH_TYPE_BITS
        self._forget(_stale_after(ETH_TYPE, ethertype))
        return True

    def pop_pbb(self) -> bool:
        """Pop an I-TAG; False if there is none. It may stay (with half a customer's header behind it), so nothing is known then."""
        if not self.has(layer_bits(Layer.PBB)):
            return False
        self._forget(KEY_MASK & ~(IN_PORT_BITS | CARRIED_BITS))
        self._forget_tags()
        return True

    def _encapsulated(self, ethertype: int, layer: Layer) -> None:
        self._forget(_BEHIND_TAGS | _OUTER_BITS)
        self._forget_tags()
        self.key = LAYERS.put(ETH_TYPE.put(self.key, ethertype), int(layer)) & ~_TAGS_BITS
        self._written |= _ETH_TYPE_BITS | LAYERS.mask | _TAGS_BITS
        self._stale &= ~self._written

    def _forget_tags(self) -> None:
        self._tags = None
        self._shift = 0
        self._unsettled = False

    @property
    def outer_tci(self) -> int:
        """The outermost tag's TCI without VLAN_PRESENT."""
        return self.key >> _OUTER & _TAG & ~VLAN_PRESENT

    def _forget(self, bits: int) -> None:
        self._stale |= bits
        self._written &= ~bits

    def _all_tags(self) -> list[_Tag]:
        if self._tags is None:
            self._tags = [_Tag(self.key >> at & _TAG, self._written >> at & _TAG, at) for at in (_OUTER, _INNER)]
        return self._tags

    def _moved(self, tags: list[_Tag], by: int) -> None:
        self._shift += by
        self._unsettled = self._shift != 0
        self._show_tags(tags)

    def _show_tags(self, tags: list[_Tag]) -> None:
        """Put the two outermost tags where the key has them."""
        outer = tags[0]
        inner = tags[1] if len(tags) > 1 else _UNSEEN_TAG
        self.key = self.key & ~_TAGS_BITS | outer.value << _OUTER | inner.value << _INNER
        self._written = self._written & ~_TAGS_BITS | outer.written << _OUTER | inner.written << _INNER

    @staticmethod
    def _origins(tags: list[_Tag]) -> tuple[int, int]:
        return tags[0].origin, tags[1].origin if len(tags) > 1 else -1


def _in_packet(bits: int, outer: int, inner: int) -> int:
    """Bits of the key now, as bits of the packet's key: the tags come from these shifts."""
    moved = bits & ~_TAGS_BITS
    if outer >= 0:
        moved |= (bits >> _OUTER & _TAG) << outer
    if inner >= 0:
        moved |= (bits >> _INNER & _TAG) << inner
    return moved


def _from_packet(mask: int, outer: int, inner: int) -> int:
    """The other way round: bits of the packet's key, as bits of the key when its tags came from these shifts."""
    moved = mask & ~_TAGS_BITS
    if outer >= 0:
        moved |= (mask >> outer & _TAG) << _OUTER
    if inner >= 0:
        moved |= (mask >> inner & _TAG) << _INNER
    return moved
