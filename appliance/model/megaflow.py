"""Megaflow: what the slow path tells the fast path about a set of packets; and what the fast path tells back.

A megaflow says: packets whose flow key, under ``mask``, is ``key`` get ``actions``, in order. An empty list drops. False 1-bits in
the mask cost speed; false 0-bits forward wrongly. Where two live megaflows overlap (one may have kept a finer mask through a change
of the tables), their actions are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, Meter, PopMpls, PopPbb, PushMpls, PushPbb, SetField, SetQueue
from appliance.model.tunnel import NO_TUNNEL, Tunnel


class PacketInReason(IntEnum):
    """OFPR_* (specification 1.3.5, section 7.4.1)."""

    NO_MATCH = 0
    ACTION = 1
    INVALID_TTL = 2


# ── datapath actions: OpenFlow's, with everything decided that does not depend on the packet ──────────────────────────
@dataclass(frozen=True, slots=True)
class Forward:
    """Send the packet as it is now to one port of the switch (``ports.is_port_number``), also to the one that it came from."""

    port: int


@dataclass(frozen=True, slots=True)
class Flood:
    """Send the packet as it is now to every port but the one it came from (OFPP_FLOOD, OFPP_ALL).

    Which ports those are is state of the datapath, so that a port that comes or goes changes no megaflow.
    """


@dataclass(frozen=True, slots=True)
class PushTag:
    """Push an 802.1Q (0x8100) or 802.1ad (0x88a8) tag; ``tci`` is PCP << 13 | VID, without OFPVID_PRESENT."""

    tpid: int
    tci: int


@dataclass(frozen=True, slots=True)
class PopTag:
    """Take off the outermost tag; nothing happens to a packet that has none."""


@dataclass(frozen=True, slots=True)
class DecTtl:
    """Take one from the IPv4 TTL or IPv6 hop limit. A packet whose TTL is 0 or 1 stops here and is INVALID_TTL."""


@dataclass(frozen=True, slots=True)
class Controller:
    """Send the packet as it is now to the controllers: a packet-in that says all this."""

    reason: PacketInReason
    table_id: int
    cookie: int
    max_len: int
    metadata: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """What one bucket of a SELECT or FAST FAILOVER group does. ``bucket`` is its place in the group.

    ``weight`` counts in Select. ``watch_port`` counts in Failover: 0 for a bucket that is live whatever the ports do. A bucket
    that is live while one of several ports is has a way for each of them.
    """

    bucket: int
    actions: tuple[DatapathAction, ...]
    weight: int = 1
    watch_port: int = 0


@dataclass(frozen=True, slots=True)
class Select:
    """One of the ways, by weight and ``packet.select.select_hash`` of the packet as it is now. The last action of a list.

    At most MAX_WAYS ways, all of a weight above 0; none at all drops.
    """

    group_id: int
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Failover:
    """The first way whose port is live; the packet is dropped if none is. The last action of a list; at most MAX_WAYS ways."""

    group_id: int
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class CallPlugin:
    """Let a plug-in do what it is for; it may drop the packet. ``arguments`` are ``model.plugin.ARGUMENT_BYTES`` bytes."""

    plugin_id: int
    arguments: bytes


@dataclass(frozen=True, slots=True)
class Clone:
    """Do the actions to a copy of the packet; the packet itself goes on as it is. What stops the copy does not stop the packet."""

    actions: tuple[DatapathAction, ...]


@dataclass(frozen=True, slots=True)
class Again:
    """Parse the packet as it is now, and go on with the megaflow that it finds as if it had come in on the port ``place``, of which
    there is none: a number from FIRST_AGAIN to LAST_AGAIN. The last action of a list."""

    place: int


FIRST_AGAIN = 0x10000
LAST_AGAIN = 0x7FFFFFFF


def is_again(in_port: int) -> bool:
    """Whether this stands in a flow key in the place of a port, because the packet has been parsed again."""
    return FIRST_AGAIN <= in_port <= LAST_AGAIN


MAX_WAYS = 32
MAX_LEADING_METERS = 4
"""Meters that stand before everything else in a megaflow's actions: the fast path runs them also for packets that it sends up
with UpcallReason.ACTION."""

DatapathAction = (
    Forward
    | Flood
    | SetField
    | PushTag
    | PopTag
    | DecTtl
    | PushMpls
    | PopMpls
    | DecMplsTtl
    | CopyTtlOut
    | CopyTtlIn
    | PushPbb
    | PopPbb
    | SetQueue
    | Meter
    | CallPlugin
    | Select
    | Failover
    | Clone
    | Controller
    | Again
)
"""Those for MPLS, PBB and copied TTLs are OpenFlow's own: what they copy, they take from the packet. ``Meter`` passes the packet
on, drops it, or remarks its DSCP: one after another, where their instructions stood."""


class Megaflow(NamedTuple):
    """``id`` is given by the switch and never used again. ``key`` has no bit outside ``mask``."""

    id: int
    key: int
    mask: int
    actions: tuple[DatapathAction, ...]


class MegaflowStatistics(NamedTuple):
    """What the fast path did itself with packets of a megaflow since it was installed (punted packets do not count here).

    ``last_used`` is in seconds of the same clock as ``now`` in ``switch.step``, 0.0 for never; ``tcp_flags`` is the OR of all seen.
    """

    packets: int
    bytes: int
    last_used: float
    tcp_flags: int = 0
    ways: tuple[tuple[int, int], ...] = ()
    """Packets and bytes of each way of the megaflow's Select or Failover, in their order."""
    dropped: tuple[tuple[int, int], ...] = ()
    """Packets and bytes that each meter and plug-in of the actions dropped, in their order. They are in ``packets`` too."""


class UpcallReason(IntEnum):
    """Why the fast path sent a packet up; the numbers are those of bpf_prog/abi.h."""

    MISS = 0
    """No megaflow matched."""
    ACTION = 1
    """The megaflow has an action that the hook cannot do."""
    TTL = 2
    """The megaflow takes from the TTL, and this packet's is used up."""
    CATCHING_UP = 3
    """The megaflow is new and earlier packets of it are still on their way through the slow path: this one queues behind them."""
    COPY = 4
    """No packet but a copy, for the controllers, of one that the fast path has dealt with and counted."""


NO_MEGAFLOW = 0


class Upcall(NamedTuple):
    """One packet from the fast path. ``frame`` is whole, tags from metadata put back; ``megaflow_id`` is NO_MEGAFLOW on a miss.

    ``gso_size`` is the payload of each segment if the frame is a segmentation-offload one, else 0. A local stack's frame may
    have a partial layer-4 checksum (only the pseudo-header's sum): ``packet.checksum.complete`` finishes it.

    Of a COPY, ``frame`` is the packet as it was when it met ``controller``, and of ``key`` in_port and the tunnel fields count.
    """

    in_port: int
    reason: UpcallReason
    megaflow_id: int
    key: int
    frame: bytes
    gso_size: int = 0
    controller: Controller | None = None
    octets: int = 0
    """As the packet came in, if it has been parsed again since (``key`` has a place of ``Again`` for a port); else 0."""
    came: Tunnel = NO_TUNNEL
    """Of such a packet, the addresses of the tunnel that it came by: those in ``key`` may have been set since."""


IN_BURSTS = frozenset({UpcallReason.ACTION, UpcallReason.COPY})


class Burst(NamedTuple):
    """Packets that came up with none of the same port between them and agree in all that Upcall says but for ``frame`` and, in_port
    and tunnel fields apart, ``key``. ``reason`` is IN_BURSTS; ``gso_size`` and ``octets`` are 0.

    ``first`` is the first of them; ``keys``, as the bytes of the flow key, and ``frames`` are of them all.
    """

    first: Upcall
    keys: list[bytes]
    frames: list[bytes]

    def one_by_one(self) -> Iterator[Upcall]:
        for key, frame in zip(self.keys, self.frames, strict=True):
            yield self.first._replace(key=int.from_bytes(key, "big"), frame=frame)


@dataclass(frozen=True, slots=True)
class MeterBand:
    """``rate`` is in packets/s or kb/s (1 kb = 1,000 bits), ``burst`` in packets or kb. ``prec_level`` is None for a drop band."""

    rate: int
    burst: int
    prec_level: int | None = None


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """What the fast path must know of a meter. ``in_packets`` says what rates count; at most MAX_BANDS bands."""

    meter_id: int
    in_packets: bool
    bands: tuple[MeterBand, ...]


MAX_BANDS = 8


@dataclass(frozen=True, slots=True)
class MeterCounters:
    """Since the meter was installed: what came in, and packets and bytes that each band dropped or remarked."""

    packet_in_count: int
    byte_in_count: int
    bands: tuple[tuple[int, int], ...]


class DropReason(IntEnum):
    """Why the fast path dropped a packet; names and numbers are those of bpf_prog/abi.h."""

    NO_ACTION = 0
    """The megaflow has no output: a flow entry, or the table-miss rule, says drop."""
    NOT_A_PORT = 1
    """It came in on an interface that is no port of the switch (any more), or by a tunnel that no port has an end of."""
    NO_RECV = 2
    """The port is configured with OFPPC_NO_RECV or PORT_DOWN."""
    OUTPUT_DOWN = 3
    """The only output port is down, gone or configured with OFPPC_NO_FWD."""
    UPCALL_FULL = 4
    """The ring buffer to the slow path was full."""
    REWRITE_FAILED = 5
    """The kernel refused a change to the packet (out of memory, or no headroom)."""
    REDIRECT_FAILED = 6
    """The kernel refused to clone or redirect the packet."""
    RUNT = 7
    """Shorter than an Ethernet header."""
    METER = 8
    """A meter's drop band."""
    NO_LIVE_BUCKET = 9
    """A FAST FAILOVER group has no live bucket, or a SELECT group no bucket."""
    UPCALL_SHARE = 10
    """The packets of its port fill their share of the queue to the slow path."""
    PLUGIN = 11
    """A plug-in dropped it."""
    NO_TUNNEL_DESTINATION = 12
    """The only output is a tunnel port without a fixed remote, and no action has set ``tun_dst`` (to another address than ours)."""
