"""The eBPF fast path: ``driver.Datapath`` on the maps and programs of ``bpf_prog/``.

Each noun has a module, which alone writes its maps: ``ports``, ``megaflows`` (with ``slots``, ``gates``, ``probing``),
``meters``, ``plugins``, ``upcalls``. Invariant: all of them are for one set of loaded programs, and go with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from appliance.datapath.crc import shift_tables
from appliance.datapath.driver import DatapathPort, TierCounters
from appliance.datapath.index import random_constants
from appliance.datapath.loader import Programs, Sizes
from appliance.datapath.megaflows import Megaflows
from appliance.datapath.meters import Meters
from appliance.datapath.plugins import PluginPrograms
from appliance.datapath.ports import Ports
from appliance.datapath.upcalls import Upcalls
from appliance.model.megaflow import DropReason, MegaflowStatistics, MeterConfig, MeterCounters
from appliance.model.plugin import PluginFile
from appliance.model.ports import Hook


class BpfDatapath:
    """See ``driver.Datapath``. Needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW, or CAP_SYS_ADMIN for the first three."""

    def __init__(self, sizes: Sizes | None = None, defines: tuple[str, ...] = (), plugins: Sequence[PluginFile] = ()) -> None:
        """Loads the programs, in half a second; what has not been compiled before is, in some four. Raises DatapathError."""
        self.sizes = sizes = sizes or Sizes()
        constants = random_constants()
        self.programs = programs = Programs(sizes, constants, defines)
        for power, table in enumerate(shift_tables()):
            programs.update("crc_shifts", power, table)
        self.plugins = PluginPrograms(programs, plugins, sizes.cpus)
        self.meters = Meters(programs.shared_memory("meters", Meters.BYTES), programs.take_fd)
        self.megaflows = Megaflows(programs, sizes, constants, self.meters, self.plugins.matched)
        self.ports = Ports(programs, sizes)
        self._upcalls = Upcalls(programs, sizes)
        # What each first packet of a flow takes: a call less.
        self.upcalls, self.send, self.install = self._upcalls.take, self.ports.send, self.megaflows.install
        self._drops = memoryview(programs.shared_memory("drops", len(DropReason) * sizes.cpus * 8)).cast("Q")

    def left_behind(self, ifindex: int) -> bool:
        return self.ports.left_behind(ifindex)

    def attach(self, port: DatapathPort, *, wait: bool = False) -> bool:
        return self.ports.attach(port, wait=wait)

    def take_over(self, number: int) -> None:
        self.ports.take_over(number)

    def update(self, port: DatapathPort) -> None:
        self.ports.update(port)

    def detach(self, number: int) -> None:
        self.ports.detach(number)

    def missing(self, number: int) -> frozenset[Hook]:
        return self.ports.missing(number)

    def put_back(self, number: int) -> None:
        self.ports.put_back(number)

    def port_counters(self) -> Mapping[int, TierCounters]:
        return self.ports.counters()

    def drops(self) -> Mapping[DropReason, int]:
        reasons = len(DropReason)
        return {reason: sum(self._drops[reason + cpu * reasons] for cpu in range(self.sizes.cpus)) for reason in DropReason}

    def remove(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        return self.megaflows.remove(megaflow_ids)

    def statistics(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        return self.megaflows.statistics(megaflow_ids)

    def arrange(self) -> None:
        self.megaflows.probing.arrange()

    def served(self, megaflow_id: int) -> None:
        self.megaflows.gates.served((megaflow_id,))

    def caught_up(self, megaflow_ids: Iterable[int]) -> None:
        self.megaflows.gates.served(megaflow_ids)

    def set_meter(self, meter: MeterConfig) -> None:
        self.meters.set(meter)

    def remove_meter(self, meter_id: int) -> None:
        self.meters.remove(meter_id)

    def meter(self, meter_id: int, packets: int, octets: int) -> int:
        return self.meters.take(meter_id, packets, octets)

    def meter_counters(self, meter_ids: Iterable[int]) -> dict[int, MeterCounters]:
        return self.meters.counters(meter_ids)

    def dealt_with(self) -> None:
        self._upcalls.dealt_with()

    def fileno(self) -> int:
        return self._upcalls.fd

    def close(self) -> None:
        self.ports.close()
        self.plugins.close()
        self.programs.close()
