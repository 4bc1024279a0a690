"""What a fast path owes the switch: one narrow protocol. ``bpf`` implements it with eBPF, ``fake`` in memory.

Invariant: after ``remove`` returns, no packet is handled by a megaflow that it took away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.model.megaflow import Burst, DropReason, Megaflow, MegaflowStatistics, MeterConfig, MeterCounters, Upcall
from appliance.model.plugin import Plugins
from appliance.model.ports import Hook
from appliance.model.tunnel import NO_TUNNEL, Tunnel, TunnelPort

ONE_PIECE_MTU = 3000
"""At XDP a frame that is not much longer comes in one piece of memory, which is a page."""


class DatapathError(Exception):
    """The kernel refused something. The text says what, with the kernel's or the verifier's words, and what to do."""


@dataclass(frozen=True, slots=True)
class DatapathPort:
    """What the fast path must know of a port. ``forward`` and ``receive`` are False when link or configuration says no."""

    number: int
    interface: str
    ifindex: int
    hook: Hook
    forward: bool = True
    receive: bool = True
    live: bool = True
    """Whether a FAST FAILOVER bucket that watches it is taken."""
    xdp_transmit: bool = False
    """Frames redirected to it at XDP really leave (a veth drops them silently unless its peer has NAPI on)."""
    tunnel: TunnelPort | None = None
    """``interface`` is a tunnel device, which several ports may share; this port is that end of its tunnels. At TC alone."""
    generic: bool = False
    """At XDP the program runs behind the driver."""
    finished: bool = True
    """Frames come to XDP with their checksums finished and their tags in them; if not, XDP passes them all on."""
    mtu: int = 1500
    other_end: bytes = b""
    """The MAC address of the frames that TC puts straight to the other end of this veth; empty: none are."""


@dataclass(frozen=True, slots=True)
class TierCounters:
    """What became of the packets that came in on one port: their sum is ``rx_packets`` (invariant 4).

    A packet that XDP passes on counts once, at TC. ``tx_*`` are packets that the fast path put out on this port.
    """

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    forwarded_xdp: int = 0
    forwarded_tc: int = 0
    dropped: int = 0
    punted: int = 0
    lost: int = 0
    """Copies for the controllers that found no room in the queue to the slow path."""


class Datapath(Protocol):
    """Methods raise ``DatapathError``; none blocks on the network."""

    @property
    def plugins(self) -> Plugins:
        """Those that it was made with."""

    def left_behind(self, ifindex: int) -> bool:
        """Whether an earlier ofswitch that died has left its program on the interface, as it does until ``attach`` takes over."""

    def attach(self, port: DatapathPort, *, wait: bool = False) -> bool:
        """Start taking packets from the interface. Takes over a program that an earlier ofswitch left there.

        With ``wait`` such a program goes on until ``take_over``, and all else is made ready: False if it is so.
        """

    def take_over(self, number: int) -> None:
        """Take packets from a port that waits: each packet meets the earlier program or ours. Others are passed over."""

    def update(self, port: DatapathPort) -> None:
        """Change the flags of an attached port."""

    def detach(self, number: int) -> None:
        """Stop; nothing of ours stays on the interface. The interface may already be gone."""

    def missing(self, number: int) -> frozenset[Hook]:
        """At which hooks of an attached port's interface our program is not any more, because somebody else took it off.

        Without that at XDP, TC has all of the port's packets; without that at TC, none comes that XDP does not forward. Empty if
        the interface is gone, and for a port that waits.
        """

    def put_back(self, number: int) -> None:
        """Attach again what is ``missing``; what is refused at one hook does not keep it from the other. Raises DatapathError."""

    def install(self, megaflow: Megaflow) -> bool:
        """False if the fast path has no room for it: its packets then keep coming up one by one."""

    def remove(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        """Returns when the packets have left that were under way by them (some microseconds to milliseconds), with their last
        statistics, so that nothing counted is lost. Unknown ids are passed over."""

    def set_meter(self, meter: MeterConfig) -> None:
        """Install or change a meter: its counters stay, its buckets start full. Raises DatapathError if there are too many."""

    def remove_meter(self, meter_id: int) -> None:
        """Megaflows that use it must be removed first. Unknown ids are passed over."""

    def meter(self, meter_id: int, packets: int, octets: int) -> int:
        """Meter packets that the slow path executes, now, with the same buckets and counters as all others.

        METER_PASSES, METER_DROPS, or by how many levels to raise the drop precedence. An unknown meter lets everything through.
        """

    def meter_counters(self, meter_ids: Iterable[int]) -> dict[int, MeterCounters]:
        """What came to meters, and what their bands did. Unknown ids are passed over."""

    def arrange(self) -> None:
        """Wanted about once a second, after ``statistics`` of all: what finds most packets is looked at first from now on."""

    def statistics(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        """Statistics since installation. Unknown ids are passed over."""

    def upcalls(self, limit: int) -> Sequence[Upcall | Burst]:
        """At most ``limit`` packets that wait, oldest first; empty when there are none."""

    def dealt_with(self) -> None:
        """All packets that ``upcalls`` has handed out have been sent on, or will not be: later ones of their flows may pass."""

    def served(self, megaflow_id: int) -> None:
        """One CATCHING_UP packet of this megaflow has been sent on. When all have, the fast path takes over."""

    def caught_up(self, megaflow_ids: Iterable[int]) -> None:
        """All misses that came before these megaflows were installed have been sent on: they may stop catching up."""

    def send(self, port: int, frame: bytes, gso_size: int = 0, queue_id: int | None = None, tunnel: Tunnel = NO_TUNNEL) -> bool:
        """Put a frame out on a port, now. One longer than the port's MTU needs ``gso_size``. False if it is not sent: the port is
        gone or down, its queue is full, or it is a tunnel port and ``tunnel`` has no destination (``TunnelPort.sends``).

        A queue that the port has not is the one that packets without any take.
        """

    def port_counters(self) -> Mapping[int, TierCounters]:
        """By port number."""

    def drops(self) -> Mapping[DropReason, int]:
        """Packets dropped by the fast path, by reason."""

    def fileno(self) -> int:
        """A file descriptor that is readable while there are upcalls."""

    def close(self) -> None:
        """Detach everything."""
