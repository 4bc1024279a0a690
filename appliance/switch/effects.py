"""What the switch wants done. The shell does it in the order of the list that ``Switch.step`` returned.

Invariant: an effect needs no decision and no look back into the switch.

Those of which there is one for each new flow, packet-in or answer are named tuples, which are made in a third of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from appliance.model.megaflow import Megaflow, MeterConfig
from appliance.model.tunnel import NO_TUNNEL, Tunnel
from appliance.openflow.messages import Message
from appliance.openflow.packet_ins import PacketIns


class SendMessage(NamedTuple):
    """To one controller. The shell drops it if the connection has gone."""

    connection: int
    message: Message


class SendPacketIns(NamedTuple):
    """Packet-ins to one controller, likewise."""

    connection: int
    packet_ins: PacketIns


class InstallMegaflow(NamedTuple):
    """Refused by the fast path: step ``InstallRefused``."""

    megaflow: Megaflow


@dataclass(frozen=True, slots=True)
class RemoveMegaflows:
    """Step ``FinalStatistics`` with what ``Datapath.remove`` returned, once this list is done and before any other event.

    Stands before a barrier's reply: the packets that were under way by them have left then.
    """

    megaflow_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReadStatistics:
    """Step ``StatisticsRead`` of these megaflows, once this list is done and before any other event.

    They stay, but from now on other flow entries than before count their packets: what came until now is to be counted apart.
    """

    megaflow_ids: tuple[int, ...]


class Served(NamedTuple):
    """The frames of one CATCHING_UP packet of this megaflow stand before this in the list: ``Datapath.served``."""

    megaflow_id: int


@dataclass(frozen=True, slots=True)
class TellWhenSent:
    """Step ``FramesSent``, once this list is done and before any other event but those that it asked for earlier."""


class SendFrame(NamedTuple):
    """Put a frame out on a port. ``gso_size`` is the payload of each segment, 0 if the frame is not to be cut up.

    ``queue_id`` is a queue of that port (``Switch`` was told of it), None for the one that packets without OFPAT_SET_QUEUE take.
    ``tunnel`` is for a tunnel port without fixed ends; its addresses are those that the actions set, 0 if they set none.
    """

    port: int
    frame: bytes
    gso_size: int = 0
    queue_id: int | None = None
    tunnel: Tunnel = NO_TUNNEL


@dataclass(frozen=True, slots=True)
class UpdatePort:
    """What the fast path is to let out of and into a port from now on: ``Datapath.update``."""

    number: int
    forward: bool
    receive: bool
    live: bool
    """Whether FAST FAILOVER buckets that watch it are taken."""


@dataclass(frozen=True, slots=True)
class Advertise:
    """The port's link is to advertise these features (OFPPF_* bits, all of them among the port's ``supported``)."""

    number: int
    features: int


@dataclass(frozen=True, slots=True)
class SetMeter:
    """``Datapath.set_meter``: stands before any megaflow that uses it."""

    meter: MeterConfig


@dataclass(frozen=True, slots=True)
class RemoveMeter:
    """``Datapath.remove_meter``: stands behind the removal of all megaflows that used it."""

    meter_id: int


Effect = (
    SendMessage
    | SendPacketIns
    | InstallMegaflow
    | RemoveMegaflows
    | ReadStatistics
    | Served
    | TellWhenSent
    | SendFrame
    | UpdatePort
    | Advertise
    | SetMeter
    | RemoveMeter
)
