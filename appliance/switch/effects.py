"""What the switch wants done. The shell does it in the order of the list that ``Switch.step`` returned.

Invariant: an effect needs no decision and no look back into the switch.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model.megaflow import Megaflow
from appliance.openflow.messages import Message


@dataclass(frozen=True, slots=True)
class SendMessage:
    """To one controller. The shell drops it if the connection has gone."""

    connection: int
    message: Message


@dataclass(frozen=True, slots=True)
class InstallMegaflow:
    """Refused by the fast path: step ``InstallRefused``."""

    megaflow: Megaflow


@dataclass(frozen=True, slots=True)
class RemoveMegaflows:
    """Step ``FinalStatistics`` with what ``Datapath.remove`` returned, once this list is done and before any other event."""

    megaflow_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReadStatistics:
    """Step ``StatisticsRead`` of these megaflows, once this list is done and before any other event.

    They stay, but from now on other flow entries than before count their packets: what came until now is to be counted apart.
    """

    megaflow_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SyncDatapath:
    """``Datapath.sync``: packets that were under way when megaflows were removed have left. Comes before a barrier's reply."""


@dataclass(frozen=True, slots=True)
class Served:
    """The frames of one CATCHING_UP packet of this megaflow stand before this in the list: ``Datapath.served``."""

    megaflow_id: int


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Put a frame out on a port. ``gso_size`` is the payload of each segment, 0 if the frame is not to be cut up."""

    port: int
    frame: bytes
    gso_size: int = 0


@dataclass(frozen=True, slots=True)
class UpdatePort:
    """What the fast path is to let out of and into a port from now on: ``Datapath.update``."""

    number: int
    forward: bool
    receive: bool


Effect = SendMessage | InstallMegaflow | RemoveMegaflows | ReadStatistics | SyncDatapath | Served | SendFrame | UpdatePort
