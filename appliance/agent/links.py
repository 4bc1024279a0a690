"""The kernel's interfaces, as the agent needs them: one narrow protocol, so that tests can do without a kernel.

Invariant: an interface that goes while it is asked for is a ``LinkChange`` to come, never an exception.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance import ports
from appliance.model.ports import Hook, Port, PortConfig, PortCounters
from appliance.model.queues import QueueCounters
from appliance.ports import (
    BigTcp,
    End,
    Finished,
    HookChoice,
    Interface,
    LinkChange,
    LinkWatcher,
    LocalSpec,
    Offloads,
    OutputMethod,
    PortFeature,
    QueueRates,
    TunnelDevice,
)
from appliance.ports.ethtool import driver


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the fast path meets a port's packets, and why, in words."""

    hook: Hook
    reason: str
    generic: bool = False
    """At XDP, behind the driver."""


class Links(Protocol):
    """Interfaces, and what happens to them."""

    @property
    def known(self) -> Mapping[int, Interface]:
        """All interfaces by index, as of the last ``changes``."""

    def fileno(self) -> int:
        """Readable when there are changes."""

    def changes(self) -> list[LinkChange]:
        """What has happened since the last call; does not block."""

    def claim(self, what: str) -> None:
        """See ``ports.Claims``, also for what they are called. Raises PortError."""

    def release(self, what: str) -> None:
        """Take back what ``claim`` did."""

    def place(self, interface: Interface, requested: HookChoice) -> Placement: ...

    def finish_frames(self, interface: Interface, *, generic: bool) -> Finished:
        """Have frames come to XDP with their checksums finished and their tags in them; whether they do."""

    def adopt_offloads(self, interface: Interface, *, generic: bool) -> None:
        """What an agent that died did by ``finish_frames`` counts as done by us."""

    def restore_offloads(self, ifindex: int) -> None:
        """Take back what ``finish_frames`` did. XDP must have been taken off the interface."""

    def ends(self, interface: Interface) -> Sequence[End]:
        """The interface and, of a veth, its other end, as far as there is one."""

    def big_tcp_hindrance(self, interface: Interface, ours: Collection[End]) -> str:
        """Why it should not be sent BIG TCP's frames, in words; empty if it may. ``ours`` are the ends of all ports."""

    def enlarge_frames(self, interface: Interface) -> str:
        """Have it take BIG TCP's frames whole, and its other end send them; in words, what cannot be had of that.

        Raises PortError.
        """

    def restore_frames(self, interface: Interface) -> None:
        """Take back what ``enlarge_frames`` did, in an earlier run too. Raises PortError."""

    def xdp_transmit(self, interface: Interface) -> bool:
        """Whether frames that XDP redirects to it really leave. Ask once it is attached."""

    def choose_output(self, interface: Interface) -> OutputMethod:
        """How TC's frames leave by it. Ask again when something beside it changed."""

    def describe(self, interface: Interface, number: int) -> Port: ...

    def counters(self, ifindexes: Iterable[int]) -> Mapping[int, PortCounters]:
        """The kernel's, since the interface was made."""

    def set_queues(self, ifindex: int, queues: Sequence[QueueRates], speed: int) -> None:
        """In place of those that we gave the interface before. ``speed`` is in bits a second. Raises PortError."""

    def queue_counters(self, ifindex: int, queue_ids: Iterable[int]) -> Mapping[int, QueueCounters]:
        """By queue id, since ``set_queues``."""

    def advertise(self, interface: Interface, features: int) -> None:
        """Let the link advertise these features (OFPPF_*). Raises PortError."""

    def set_promiscuous(self, ifindex: int, on: bool) -> bool:
        """True if that was a change. Raises PortError."""

    def make_local(self, spec: LocalSpec, mtu: int) -> Interface:
        """OFPP_LOCAL's pair of interfaces, or those of an earlier run of the switch; the switch's end. Raises PortError."""

    def remove_local(self, spec: LocalSpec) -> None:
        """Raises PortError."""

    def make_tunnel_device(self, device: TunnelDevice) -> Interface:
        """Or take over what an earlier run of the switch left. Raises PortError."""

    def remove_tunnel_devices(self, switch: str, keep: Collection[str] = ()) -> list[str]:
        """All of this switch's but those named in ``keep``; returns their names. Raises PortError."""

    def close(self) -> None:
        """Once the fast path has been taken off all interfaces: take back what ``finish_frames`` did, too."""


class KernelLinks:
    """Those of the network namespace that it is made in."""

    def __init__(self) -> None:
        self._watcher = LinkWatcher()
        self._offloads = Offloads()
        self._claims = ports.Claims()
        self._big_tcp = BigTcp()

    @property
    def known(self) -> Mapping[int, Interface]:
        return self._watcher.known

    def fileno(self) -> int:
        return self._watcher.fileno()

    def changes(self) -> list[LinkChange]:
        return self._watcher.changes()

    def claim(self, what: str) -> None:
        self._claims.take(what)

    def release(self, what: str) -> None:
        self._claims.release(what)

    def place(self, interface: Interface, requested: HookChoice) -> Placement:
        hook, reason = ports.choose_hook(interface, requested, driver(interface.name), ports.xdp_features(interface.ifindex))
        return Placement(hook, reason, requested == "xdp-generic")

    def finish_frames(self, interface: Interface, *, generic: bool) -> Finished:
        return self._offloads.finish(interface, generic=generic)

    def adopt_offloads(self, interface: Interface, *, generic: bool) -> None:
        self._offloads.adopt(interface, generic=generic)

    def restore_offloads(self, ifindex: int) -> None:
        self._offloads.restore(ifindex)

    def ends(self, interface: Interface) -> Sequence[End]:
        return self._big_tcp.ends(interface)

    def big_tcp_hindrance(self, interface: Interface, ours: Collection[End]) -> str:
        return self._big_tcp.hindrance(interface, ours)

    def enlarge_frames(self, interface: Interface) -> str:
        return self._big_tcp.enlarge(interface)

    def restore_frames(self, interface: Interface) -> None:
        self._big_tcp.restore(interface)

    def xdp_transmit(self, interface: Interface) -> bool:
        return ports.xdp_transmit(driver(interface.name), ports.xdp_features(interface.ifindex))[0]

    def choose_output(self, interface: Interface) -> OutputMethod:
        output = ports.choose_output(interface)
        if output.other_end and not self._watcher.hears_other_ends:
            return OutputMethod(b"", "without CAP_NET_BROADCAST nobody says when its other end changes")
        return output

    def describe(self, interface: Interface, number: int) -> Port:
        return ports.describe(interface, number, PortConfig.NONE)

    def counters(self, ifindexes: Iterable[int]) -> Mapping[int, PortCounters]:
        return ports.read_counters(ifindexes)

    def set_queues(self, ifindex: int, queues: Sequence[QueueRates], speed: int) -> None:
        ports.set_queues(ifindex, queues, speed)

    def queue_counters(self, ifindex: int, queue_ids: Iterable[int]) -> Mapping[int, QueueCounters]:
        return ports.queue_counters(ifindex, queue_ids)

    def advertise(self, interface: Interface, features: int) -> None:
        ports.advertise(interface.name, PortFeature(features))

    def set_promiscuous(self, ifindex: int, on: bool) -> bool:
        return ports.set_promiscuous(ifindex, on)

    def make_local(self, spec: LocalSpec, mtu: int) -> Interface:
        return ports.make_local(spec, mtu)

    def remove_local(self, spec: LocalSpec) -> None:
        ports.remove_local(spec)

    def make_tunnel_device(self, device: TunnelDevice) -> Interface:
        return ports.make_tunnel_device(device)

    def remove_tunnel_devices(self, switch: str, keep: Collection[str] = ()) -> list[str]:
        return ports.remove_tunnel_devices(switch, keep)

    def close(self) -> None:
        self._offloads.restore_all()
        self._claims.close()
        self._watcher.close()
