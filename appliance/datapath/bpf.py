"""The eBPF fast path: ``driver.Datapath`` on the maps and programs of ``bpf_prog/``.

A megaflow's slot is written through shared memory first and found through its bucket after that, which one store does; it goes the
other way round when it is removed, and its slot rests before it is used again, longer than any packet is under way. Invariant: eBPF
never sees half a megaflow.

A new megaflow is *gated*: packets that hit it still queue up for the slow path while earlier ones of it are there, so that one
flow's packets leave in order. ``ticket`` counts those in the queue (eBPF), ``served`` those sent on (Python), both plus the one
that stands for the misses before the megaflow was installed (``caught_up``). The gate opens when they are equal; or after
GATE_SECONDS, or when MAX_WAITING packets wait: a flow too fast for the slow path is let through although packets may overtake.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from appliance.datapath import netlink
from appliance.datapath.clock import TickClock
from appliance.datapath.compile import PUNTED, Compiled, CompiledChoice, compile_actions, in_slots
from appliance.datapath.crc import shift_tables
from appliance.datapath.driver import ONE_PIECE_MTU, DatapathError, DatapathPort, TierCounters
from appliance.datapath.index import Index, Place, Subtable, random_constants
from appliance.datapath.keeper import Keeper
from appliance.datapath.layout import (
    BUCKET_WAYS,
    EDIT_OPS,
    MAX_CHOICES,
    MAX_FLOOD_PORTS,
    MAX_SUBTABLES,
    NO_OTHER_END,
    NO_SUBTABLE,
    PORT_PLACES,
    UPCALL_UNIT,
    Bucket,
    Choice,
    MegaflowBody,
    MegaflowFlag,
    MegaflowStats,
    Op,
    Port,
    PortCounters,
    PortFlag,
    UpcallShare,
    port_ingress,
    port_place,
    tunnel_ingress,
    words,
)
from appliance.datapath.layout import Megaflow as MegaflowSlot
from appliance.datapath.layout import (
    Upcall as UpcallRecord,
)
from appliance.datapath.loader import Programs, Sizes
from appliance.datapath.meters import Meters
from appliance.datapath.plugins import PluginPrograms
from appliance.datapath.quiesce import keep_order, wait_for_packets_under_way
from appliance.datapath.slot_statistics import NOTHING, SlotStatistics, Totals
from appliance.datapath.transmit import Transmitter
from appliance.datapath.tunnels import Tunnels
from appliance.model.fields import IN_PORT, KEY_BYTES, PLUGIN_BITS
from appliance.model.megaflow import (
    NO_MEGAFLOW,
    Controller,
    DropReason,
    Megaflow,
    MegaflowStatistics,
    MeterConfig,
    MeterCounters,
    PacketInReason,
    Upcall,
    UpcallReason,
    is_again,
)
from appliance.model.plugin import PluginFile
from appliance.model.ports import Hook
from appliance.model.tunnel import NO_TUNNEL, Tunnel

GATE_SECONDS = 0.1
_BESIDES_MTU = 18
"""Bytes of a frame that the kernel allows for besides: Ethernet's header and one tag."""
_REDIRECT_TABLES = ("xdp_ports", "generic_ports")
REST_SECONDS = 0.02
"""Packets are handled in microseconds, without being preempted."""

_SLOT_BYTES = ctypes.sizeof(MegaflowSlot)
_BODY_BYTES = ctypes.sizeof(MegaflowBody)
_COUNTERS_BYTES = ctypes.sizeof(PortCounters)
_RECORD_BYTES = ctypes.sizeof(UpcallRecord)
_COUNTERS = struct.Struct("=8Q")
_PORT = struct.Struct("=III4x8s8x")
_NO_OTHER_END = NO_OTHER_END.to_bytes(8, sys.byteorder, signed=True)
_RECORD = struct.Struct(f"={KEY_BYTES}sQIIIIHHHH")
_BEHIND = struct.Struct("=8sHHI")
"""What stands behind that: of a copy cookie, table, and reason of the packet-in; of all the bytes that the packet had."""
_SLOT = struct.Struct("=IIIHH48s")
_BODY_HEAD = struct.Struct("=QII80s")
_SUBTABLE = struct.Struct("=48s16x80s48x")
_NO_WORDS = words(bytes(KEY_BYTES))
_, _NO_OTHERS = _NO_WORDS
_CHOICE_BYTES = ctypes.sizeof(Choice)
_MAC_BYTES = 12
_METADATA_BYTES = 8
"""The first of a key."""
_NO_STATISTICS = MegaflowStatistics(0, 0, 0.0)
_REASONS = tuple(UpcallReason)
_ALL_PORTS = 0
"""In place of a port number, in ``upcall_shares``."""
_SUBTABLE_WORD, _FLAGS = (int(getattr(MegaflowSlot, member).offset) // 4 for member in ("subtable", "flags"))
_SERVED, _TICKET = (int(getattr(MegaflowBody, member).offset) // 4 for member in ("served", "ticket"))
_SLOT_WORDS = _SLOT_BYTES // 4
_BODY_WORDS = _BODY_BYTES // 4
# Plain integers: what happens for each megaflow is in the way of its first packet.
_PUNT, _GATED, _WIDE = (int(flag) for flag in (MegaflowFlag.PUNT, MegaflowFlag.GATED, MegaflowFlag.WIDE))
_EDIT = int(MegaflowBody.ops.offset) + EDIT_OPS * ctypes.sizeof(Op)
_EXPRESS = int(MegaflowFlag.DIRECT | MegaflowFlag.EDITS | MegaflowFlag.RETAGS)
_TOO_SOON = int(MegaflowFlag.XDP) | _EXPRESS
"""Plug-ins' matches run at TC, and not on the express way: a megaflow that depends on them takes neither."""


@dataclass(slots=True)
class _Installed:
    """A megaflow in the fast path."""

    slot: int
    place: Place
    installed_at: float
    flags: int
    """MegaflowFlag."""
    choice: int | None = None
    ways: tuple[int, ...] = ()
    """Slots of the choice's ways."""
    stops: tuple[int, ...] = ()
    """Slots that count what each meter and plug-in drops."""
    further: tuple[int, ...] = ()
    """Slots with the rest of its ops."""
    served: int = 0
    totals: Totals = NOTHING
    statistics: MegaflowStatistics = _NO_STATISTICS
    """As read last; the same object as long as nothing is counted."""


class BpfDatapath:
    """See ``driver.Datapath``. Needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW, or CAP_SYS_ADMIN for the first three."""

    def __init__(self, sizes: Sizes | None = None, defines: tuple[str, ...] = (), plugins: Sequence[PluginFile] = ()) -> None:
        """Compiles and loads the programs, which takes about two seconds, and half a one for each plug-in. Raises DatapathError."""
        self._sizes = sizes = sizes or Sizes()
        constants = random_constants()
        self.programs = programs = Programs(sizes, constants, defines)
        self.plugins = PluginPrograms(programs, plugins, sizes.cpus)
        self._matched_by_plugins = self.plugins.matched << PLUGIN_BITS.shift
        self._index = Index(sizes.buckets, constants)
        self._slots = programs.shared_memory("megaflows", sizes.megaflows * _SLOT_BYTES)
        self._slot_words = memoryview(self._slots).cast("I")
        self._bodies = programs.shared_memory("megaflow_bodies", sizes.megaflows * _BODY_BYTES)
        self._body_words = memoryview(self._bodies).cast("I")
        counted = programs.shared_memory("megaflow_stats", sizes.megaflows * sizes.cpus * ctypes.sizeof(MegaflowStats))
        self._clock = TickClock(programs.ticks)
        self._counted = SlotStatistics(counted, sizes.megaflows, sizes.cpus)
        self._counters = programs.shared_memory("port_counters", PORT_PLACES * sizes.cpus * _COUNTERS_BYTES)
        self._drops = programs.shared_memory("drops", len(DropReason) * sizes.cpus * 8)
        self._ways = memoryview(programs.shared_memory("buckets", sizes.buckets * ctypes.sizeof(Bucket))).cast("Q")
        self._orders = programs.shared_memory("subtable_orders", 2 * MAX_SUBTABLES)
        self._order_in_use = 0
        self._listed: dict[int, None] = {}
        """Numbers of subtables, as the order in use has them."""
        self._free = deque((slot, float("-inf")) for slot in range(sizes.megaflows))
        self._installed: dict[int, _Installed] = {}
        self._gated: set[int] = set()
        self._free_choices = deque(range(MAX_CHOICES))
        self._meters = Meters(programs.shared_memory("meters", Meters.BYTES), programs.take_fd)
        self._ports: dict[int, DatapathPort] = {}
        self._flood_ports = 0
        self._transmitter = Transmitter()
        self._tunnels = Tunnels(programs, programs.shared_memory("injection", Tunnels.MEMORY_BYTES))
        self._keeper = Keeper(programs.map_fd(array) for array in ("tc_programs", "xdp_programs", "generic_programs"))
        self._attached: set[int] = set()
        self._waiting: set[int] = set()
        """Numbers of ports where an earlier agent's programs go on."""
        self._upcall_shares = memoryview(programs.shared_memory("upcall_shares", PORT_PLACES * ctypes.sizeof(UpcallShare))).cast(
            "I"
        )
        for power, table in enumerate(shift_tables()):
            programs.update("crc_shifts", power, table)
        self._ring = programs.ring_buffer("upcalls", sizes.upcall_pages * mmap.PAGESIZE)

    # ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    def attach(self, port: DatapathPort, *, wait: bool = False) -> bool:
        if not self._ports.get(port.number):
            for cpu in range(self._sizes.cpus):
                at = (port_place(port.number) + cpu * PORT_PLACES) * _COUNTERS_BYTES
                self._counters[at : at + _COUNTERS_BYTES] = bytes(_COUNTERS_BYTES)
        self._transmitter.open(port.number, port.interface, self._tunnels.mark if port.tunnel else 0)
        try:
            if port.tunnel is not None:
                self._tunnels.add(port)
            else:
                for table in _REDIRECT_TABLES:
                    self.programs.update(table, port_place(port.number), _word(port.ifindex))
            self._write_port(port)
            # Ours may be there for another port of the same tunnel device.
            if wait and port.ifindex not in self._attached and netlink.is_ours(port.ifindex):
                self._waiting.add(port.number)
            else:
                self._hook(port)
            if port.tunnel is not None:
                netlink.attach_tc(port.ifindex, self.programs.inject_fd, egress=True)
        except Exception:
            self.detach(port.number)
            raise
        return port.number not in self._waiting

    def take_over(self, number: int) -> None:
        if number in self._waiting:
            self._waiting.discard(number)
            self._hook(self._ports[number])

    def _hook(self, port: DatapathPort) -> None:
        xdp_program = 0
        if port.hook is Hook.XDP:
            if port.generic:
                xdp_program = netlink.attach_xdp(port.ifindex, self.programs.generic_xdp_fd, netlink.XdpMode.GENERIC)
            else:
                xdp_program = netlink.attach_xdp(port.ifindex, self.programs.xdp_fd)
        else:
            netlink.detach_xdp(port.ifindex)  # an earlier agent's
        netlink.attach_tc(port.ifindex, self.programs.tc_fd, xdp_program)
        self._attached.add(port.ifindex)
        self._keeper.keep(self._attached)

    def update(self, port: DatapathPort) -> None:
        self._write_port(port)

    def _write_port(self, port: DatapathPort) -> None:
        self._ports[port.number] = port
        straight = port.other_end.ljust(8, b"\0") if port.other_end else _NO_OTHER_END
        record = _PORT.pack(port.ifindex, _flags(port), port.mtu + _BESIDES_MTU, straight)
        self.programs.update("ports", port_place(port.number), record)
        self._write_ingress(port)
        self._write_flood_list()

    def _write_ingress(self, port: DatapathPort, *, gone: bool = False) -> None:
        """What packets that come in on the port's interface are taken for."""
        ways = 0 if port.tunnel is None else self._tunnels.ways(port.ifindex)
        table = "small_ifindex" if port.ifindex < self._sizes.small_ifindex else "large_ifindex"
        if ways:
            self.programs.update(table, port.ifindex, tunnel_ingress(ways))
        elif not gone:
            self.programs.update(table, port.ifindex, port_ingress(port.number, _flags(port)))
        elif table == "small_ifindex":
            self.programs.update(table, port.ifindex, bytes(8))
        else:
            self.programs.delete(table, port.ifindex)

    def _write_flood_list(self) -> None:
        ports = sorted(number for number, port in self._ports.items() if port.forward)[:MAX_FLOOD_PORTS]
        for place, number in enumerate(ports):
            self.programs.update("flood_list", place, _word(port_place(number)))
        self._flood_ports = len(ports)
        self._write_settings()

    def _write_settings(self) -> None:
        subtables = len(self._listed) | self._order_in_use << 16
        self.programs.update("settings", 0, struct.pack("=II", subtables, self._flood_ports))

    def detach(self, number: int) -> None:
        with contextlib.suppress(DatapathError):  # the earlier agent's programs and keeper go as ours do
            self.take_over(number)
        port = self._ports.pop(number, None)
        if port is None:
            return
        self.programs.update("ports", port_place(number), bytes(ctypes.sizeof(Port)))
        self._write_flood_list()
        self._tunnels.remove(number)
        self._write_ingress(port, gone=True)
        for table in _REDIRECT_TABLES:
            self.programs.delete(table, port_place(number))
        self._transmitter.close(number)
        if any(other.ifindex == port.ifindex for other in self._ports.values()):
            return  # other ports of a tunnel device
        if port.hook is Hook.XDP:
            netlink.detach_xdp(port.ifindex)
        netlink.detach_tc(port.ifindex)
        self._attached.discard(port.ifindex)
        self._keeper.keep(self._attached, freed=(port.ifindex,))

    def port_counters(self) -> Mapping[int, TierCounters]:
        return {number: self._port_counters(number) for number in self._ports}

    def _port_counters(self, number: int) -> TierCounters:
        totals = [0] * 8
        for cpu in range(self._sizes.cpus):
            at = (port_place(number) + cpu * PORT_PLACES) * _COUNTERS_BYTES
            for place, count in enumerate(_COUNTERS.unpack_from(self._counters, at)):
                totals[place] += count
        rx_bytes, tx_packets, tx_bytes, *rest = totals
        return TierCounters(sum(rest[:-1]), rx_bytes, tx_packets, tx_bytes, *rest)

    def drops(self) -> Mapping[DropReason, int]:
        counts = memoryview(self._drops).cast("Q")
        reasons = len(DropReason)
        return {reason: sum(counts[reason + cpu * reasons] for cpu in range(self._sizes.cpus)) for reason in DropReason}

    # ── megaflows ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def install(self, megaflow: Megaflow) -> bool:
        now = time.monotonic()
        parsed_again = is_again(IN_PORT.get(megaflow.key))
        compiled = compile_actions(megaflow.actions, self._meters.indices, parsed_again=parsed_again)
        ways = compiled.choice.ways if compiled.choice else ()
        slots = 1 + len(ways) + len(compiled.stops) + compiled.further_slots
        if not self._rested(slots, now) or (ways and not self._free_choices):
            return False
        subtable = self._index.subtable(megaflow.mask)
        if subtable is None:
            self.arrange()  # some may be empty
            subtable = self._index.subtable(megaflow.mask)
        if subtable is None:
            return False
        slot = self._free[0][0]
        raw = megaflow.key.to_bytes(KEY_BYTES, "big")
        place = self._index.take(subtable, raw)
        if place is None:
            return False
        self._free.popleft()
        # A megaflow whose packets all go through the slow path needs no gate: they stay in order anyway.
        flags = int(compiled.flags)
        gated = not flags & _PUNT
        if gated:
            flags |= _GATED
        edit = compiled.edit
        if edit is not None and edit.suits(megaflow.key, megaflow.mask):
            flags |= edit.flags
        if megaflow.mask & self._matched_by_plugins:
            flags &= ~_TOO_SOON
        key = words(raw)
        if key[1] != _NO_OTHERS:
            flags = flags & ~_EXPRESS | _WIDE
        installed = _Installed(slot, place, now, flags)
        choice = self._write_choice(installed, compiled.choice) if compiled.choice else None
        if compiled.stops:
            installed.stops = tuple(self._free.popleft()[0] for _ in compiled.stops)
            for counting in installed.stops:
                self._write_slot(counting, b"")
        ops = compiled.linked(choice, installed.stops)
        if compiled.further_slots:
            ops = self._write_further(installed, ops, compiled.further_slots)
        self._write_slot(slot, ops, compiled, key, megaflow.id, flags)
        if edit is not None:
            at = slot * _BODY_BYTES + _EDIT
            self._bodies[at : at + len(edit.raw)] = edit.raw
        self._installed[megaflow.id] = installed
        if gated:
            self._gated.add(megaflow.id)
        if subtable.number not in self._listed:
            self._list(subtable)
        keep_order()
        self._slot_words[slot * _SLOT_WORDS + _SUBTABLE_WORD] = subtable.number
        self._ways[place.bucket * BUCKET_WAYS + place.way] = place.tag << 32 | slot + 1
        return True

    def _write_further(self, installed: _Installed, ops: bytes, slots: int) -> bytes:
        """All of a long list of ops but the part that goes in the megaflow's own slot: that is returned."""
        installed.further = tuple(self._free.popleft()[0] for _ in range(slots))
        own, *others = in_slots(ops, installed.further)
        for slot, part in zip(installed.further, others, strict=True):
            self._write_slot(slot, part)
        return own

    def _list(self, subtable: Subtable) -> None:
        """From now on it is probed too, after the others."""
        self.programs.update("subtables", subtable.number, _SUBTABLE.pack(*words(subtable.mask.to_bytes(KEY_BYTES, "big"))))
        self._orders[self._order_in_use * MAX_SUBTABLES + len(self._listed)] = subtable.number
        self._listed[subtable.number] = None
        keep_order()
        self._write_settings()

    def arrange(self) -> None:
        self._index.arrange()
        order = self._index.order
        if order == list(self._listed):
            return
        # The other list, which no packet reads: it has not been in use since the last wait.
        other = 1 - self._order_in_use
        self._orders[other * MAX_SUBTABLES : other * MAX_SUBTABLES + len(order)] = bytes(order)
        keep_order()
        self._order_in_use, self._listed = other, dict.fromkeys(order)
        self._write_settings()
        wait_for_packets_under_way()

    def _rested(self, slots: int, now: float) -> bool:
        """Whether that many free slots may be used again. The free ones are in the order in which they were freed."""
        return len(self._free) >= slots and self._free[slots - 1][1] <= now - REST_SECONDS

    def _write_choice(self, installed: _Installed, choice: CompiledChoice) -> int:
        """Each way gets a slot that no bucket leads to; returns the index of the choice."""
        installed.choice = self._free_choices.popleft()
        installed.ways = tuple(self._free.popleft()[0] for _ in choice.ways)
        for slot, way in zip(installed.ways, choice.ways, strict=True):
            self._write_slot(slot, way.ops)
        ways = (number for slot, way in zip(installed.ways, choice.ways, strict=True) for number in (way.value, slot))
        record = struct.pack(f"=II{2 * len(choice.ways)}I", choice.kind, len(choice.ways), *ways)
        self.programs.update("choices", installed.choice, record.ljust(_CHOICE_BYTES, b"\0"))
        return installed.choice

    def _write_slot(
        self,
        slot: int,
        ops: bytes,
        compiled: Compiled = PUNTED,
        key: tuple[bytes, bytes] = _NO_WORDS,
        megaflow_id: int = NO_MEGAFLOW,
        flags: int = 0,
    ) -> None:
        """All of a slot but for the word that puts it to use. Its statistics are 0 (``_free_slots``)."""
        at = slot * _SLOT_BYTES
        # One copy, which leaves the first word as it is: pack_into would write 0 there first, which is a subtable's number.
        self._slots[at : at + _SLOT_BYTES] = _SLOT.pack(
            NO_SUBTABLE, flags, compiled.xdp_port, compiled.ttl_needed, compiled.growth, key[0]
        )
        body = _BODY_HEAD.pack(megaflow_id, 0, 1, key[1]) + ops
        at = slot * _BODY_BYTES
        self._bodies[at : at + len(body)] = body

    def remove(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        known = [megaflow_id for megaflow_id in megaflow_ids if megaflow_id in self._installed]
        for megaflow_id in known:
            installed = self._installed[megaflow_id]
            # From here on nothing fits it: no bucket's way, no entry of the cache.
            self._slot_words[installed.slot * _SLOT_WORDS + _SUBTABLE_WORD] = NO_SUBTABLE
            self._index.release(installed.place)
            self._ways[installed.place.bucket * BUCKET_WAYS + installed.place.way] = 0
        if not known:
            return {}
        wait_for_packets_under_way()
        final = self.statistics(known)
        now = time.monotonic()
        for megaflow_id in known:
            installed = self._installed.pop(megaflow_id)
            self._free_slots((installed.slot, *installed.ways, *installed.stops, *installed.further), now)
            if installed.choice is not None:
                self._free_choices.append(installed.choice)
            self._gated.discard(megaflow_id)
        return final

    def _free_slots(self, slots: Iterable[int], now: float) -> None:
        for slot in slots:
            self._counted.clear(slot)
            self._free.append((slot, now))

    def statistics(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        found = [(number, installed) for number in megaflow_ids if (installed := self._installed.get(number)) is not None]
        read = self._counted.reader([installed.slot for _, installed in found])
        # First what is counted last: no part is then more than the whole.
        self._counted.look()
        parts = {
            number: (tuple(read(slot)[:2] for slot in installed.ways), tuple(read(slot)[:2] for slot in installed.stops))
            for number, installed in found
            if installed.ways or installed.stops
        }
        self._counted.look()
        result: dict[int, MegaflowStatistics] = {}
        for number, installed in found:
            totals = read(installed.slot)
            if totals != installed.totals or number in parts:
                installed.place.subtable.hits += totals[0] - installed.totals[0]
                installed.totals = totals
                packets, octets, last_used, flags = totals
                installed.statistics = MegaflowStatistics(
                    packets, octets, self._clock.seconds(last_used), flags, *parts.get(number, ())
                )
            result[number] = installed.statistics
        return result

    # ── meters ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def set_meter(self, meter: MeterConfig) -> None:
        self._meters.set(meter)

    def remove_meter(self, meter_id: int) -> None:
        self._meters.remove(meter_id)

    def meter(self, meter_id: int, packets: int, octets: int) -> int:
        return self._meters.take(meter_id, packets, octets)

    def meter_counters(self, meter_ids: Iterable[int]) -> dict[int, MeterCounters]:
        return self._meters.counters(meter_ids)

    # ── the slow path's end ────────────────────────────────────────────────────────────────────────────────────────────
    def upcalls(self, limit: int) -> Sequence[Upcall]:
        memory = self._ring.memory
        received: list[Upcall] = []
        units: dict[int, int] = {}
        for at, size in self._ring.take(limit):
            key, megaflow_id, in_port, reason, length, gso_size, vlan_present, tpid, tci, max_len = _RECORD.unpack_from(memory, at)
            controller = _controller(memory, at, max_len) if reason == UpcallReason.COPY else None
            at += _RECORD_BYTES
            if vlan_present:
                frame = memory[at : at + _MAC_BYTES] + struct.pack(">HH", tpid, tci) + memory[at + _MAC_BYTES : at + length]
            else:
                frame = memory[at : at + length]
            number = int.from_bytes(key, "big")
            octets = 0 if IN_PORT.get(number) == in_port else _BEHIND.unpack_from(memory, at - _BEHIND.size)[-1]
            received.append(Upcall(in_port, _REASONS[reason], megaflow_id, number, frame, gso_size, controller, octets))
            units[in_port] = units.get(in_port, 0) + -(-size // UPCALL_UNIT)
        self._ring.release()
        if received:
            shares = self._upcall_shares
            units[_ALL_PORTS] = sum(units.values())
            for number, taken_out in units.items():
                place = 2 * port_place(number) + 1
                shares[place] = shares[place] + taken_out & 0xFFFFFFFF
        return received

    def served(self, megaflow_id: int) -> None:
        if megaflow_id not in self._gated:
            return
        installed = self._installed[megaflow_id]
        installed.served += 1
        words, at = self._body_words, installed.slot * _BODY_WORDS
        words[at + _SERVED] = installed.served
        if words[at + _TICKET] == installed.served or time.monotonic() - installed.installed_at > GATE_SECONDS:
            installed.flags &= ~_GATED
            self._slot_words[installed.slot * _SLOT_WORDS + _FLAGS] = installed.flags
            self._gated.discard(megaflow_id)

    def caught_up(self, megaflow_ids: Iterable[int]) -> None:
        for megaflow_id in megaflow_ids:
            self.served(megaflow_id)

    def send(self, port: int, frame: bytes, gso_size: int = 0, queue_id: int | None = None, tunnel: Tunnel = NO_TUNNEL) -> bool:
        known = self._ports.get(port)
        if known is None or known.tunnel is None:
            return self._transmitter.send(port, frame, gso_size, queue_id)
        with self._tunnels.sending(port, frame, tunnel):
            return self._transmitter.send(port, frame, gso_size, queue_id)

    def fileno(self) -> int:
        return self.programs.map_fd("upcalls")

    def close(self) -> None:
        for number in list(self._ports):
            self.detach(number)
        self._keeper.close()
        self._transmitter.close_all()
        self.plugins.close()
        self.programs.close()


def _flags(port: DatapathPort) -> PortFlag:
    flags = PortFlag(0)
    for flag, on in (
        (PortFlag.FORWARD, port.forward),
        (PortFlag.RECEIVE, port.receive),
        (PortFlag.XDP_TRANSMIT, port.xdp_transmit),
        (PortFlag.LIVE, port.live),
        (PortFlag.TUNNEL, port.tunnel is not None),
        (PortFlag.UNFINISHED, not port.finished),
        (PortFlag.IN_PIECES, port.mtu > ONE_PIECE_MTU),
    ):
        if on:
            flags |= flag
    return flags


def _controller(memory: bytes | mmap.mmap, at: int, max_len: int) -> Controller:
    """The action by which a copy came, from its record at this offset."""
    cookie, table_id, reason, _ = _BEHIND.unpack_from(memory, at + _RECORD.size)
    metadata = int.from_bytes(memory[at : at + _METADATA_BYTES], "big")
    return Controller(PacketInReason(reason), table_id, int.from_bytes(cookie, "big"), max_len, metadata)


def _word(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)
