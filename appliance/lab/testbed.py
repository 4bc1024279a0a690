"""Hosts in network namespaces of their own, each on a veth pair whose other end is an interface for the switch.

    with Testbed.of(3) as bed:
        switch = bed.start([sys.executable, "-m", "appliance.cli.main", "run", *bed.port_flags()])
        assert bed.ping("h1", "h2").ok

Invariant: leaving the ``with`` block, however it is left, ends every process that the testbed started and takes away every
namespace and interface that it made.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, permutations
from types import TracebackType
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.config import LabHost
from appliance.lab import namespace
from appliance.lab.transfer import TransferResult, transfer

T = TypeVar("T")

HOST_INTERFACE = "eth0"
TERMINATE_SECONDS = 30.0
UP_SECONDS = 30.0
POLL_SECONDS = 0.005
_A_DAY_MS = 86_400_000
_IFA_F_NODAD = 0x02
_serial = count()


class LabError(Exception):
    """The testbed cannot be built or used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Host:
    """``interface`` is the host's own end (in ``namespace``), ``switch_interface`` the switch's. Addresses: no prefix length."""

    name: str
    namespace: str
    interface: str
    switch_interface: str
    mac: str
    switch_mac: str
    address4: str
    address6: str

    def address(self, family: int) -> str:
        """``family`` is 4 or 6."""
        return self.address4 if family == 4 else self.address6


@dataclass(frozen=True, slots=True)
class PingResult:
    """``family`` is 4 or 6; ``round_trip_ms`` is the shortest, None if nothing came back."""

    source: str
    destination: str
    family: int
    sent: int
    received: int
    round_trip_ms: float | None

    @property
    def ok(self) -> bool:
        return self.sent > 0 and self.received == self.sent


class Testbed:
    """A context manager. ``isolated`` puts the switch's ends into a namespace of their own too (``switch_namespace``), so that
    nothing of the machine's network sees the test; otherwise they are where the caller is. Needs root; raises LabError.
    """

    __test__ = False  # for pytest: its name only looks like a test's

    def __init__(self, hosts: Sequence[LabHost], *, isolated: bool = False) -> None:
        serial = next(_serial)
        self.tag = f"ofs-{os.getpid()}" + (f".{serial}" if serial else "")
        self.switch_namespace = f"{self.tag}-switch" if isolated else None
        self._plans = tuple(hosts)
        self.hosts = tuple(
            Host(
                name=host.name,
                namespace=f"{self.tag}-{host.name}",
                interface=HOST_INTERFACE,
                # A name may have 15 characters, and process ids 7.
                switch_interface=f"sw-{host.name}" if isolated else f"ofs{os.getpid()}-{host.name}",
                mac=host.mac or f"02:00:00:00:00:{place:02x}",
                switch_mac=f"02:00:00:00:ff:{place:02x}",
                address4=host.address4.partition("/")[0],
                address6=host.address6.partition("/")[0],
            )
            for place, host in enumerate(hosts, 1)
        )
        self._processes: list[subprocess.Popen[Any]] = []

    @classmethod
    def of(cls, number: int, *, isolated: bool = True) -> Testbed:
        """Hosts h1, h2 … at 10.0.0.N/24 and fd00::N/64, for tests."""
        hosts = [LabHost(name=f"h{n}", address4=f"10.0.0.{n}/24", address6=f"fd00::{n:x}/64") for n in range(1, number + 1)]
        return cls(hosts, isolated=isolated)

    def __getitem__(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The switch's ends, in the hosts' order."""
        return tuple(host.switch_interface for host in self.hosts)

    def port_flags(self) -> list[str]:
        """``--port`` flags for ``ofswitch run``: port N is the Nth host's."""
        return [part for number, name in enumerate(self.interfaces, 1) for part in ("--port", f"{name}={number}")]

    # ── life ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    def __enter__(self) -> Testbed:
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def build(self) -> None:
        """Make namespaces and interfaces. The caller must ``close`` also if this raises."""
        if os.geteuid() != 0:
            raise LabError("network namespaces need root: use sudo")
        try:
            if self.switch_namespace is not None:
                namespace.create(self.switch_namespace)
                namespace.inside(self.switch_namespace, partial(_set_up, "lo"))
            for host, plan in zip(self.hosts, self._plans, strict=True):
                namespace.create(host.namespace)
                namespace.inside(host.namespace, _prepare_host)
                namespace.inside(self.switch_namespace, partial(_make_pair, host))
                namespace.inside(host.namespace, partial(_set_up_host, host, plan))
                # Last: the kernel sees to a link at once that comes up by its other end, and else up to a second later.
                namespace.inside(self.switch_namespace, partial(_set_up, host.switch_interface))
                namespace.inside(host.namespace, partial(_wait_until_up, host.interface))
        except (OSError, NetlinkError) as error:
            raise LabError(f"cannot build the network: {error}") from error

    def close(self) -> None:
        """End the processes, then take the network away. May be called twice, and after a ``build`` that failed."""
        for process in self._processes:
            self.stop(process)
        for host in self.hosts:
            namespace.remove(host.namespace)
        if self.switch_namespace is None:
            _delete_links(self.interfaces)
        else:
            namespace.remove(self.switch_namespace)

    def leftovers(self) -> list[str]:
        """What should have gone with ``close`` and is still there."""
        found = [f"process {process.pid}" for process in self._processes if process.poll() is None]
        names = [host.namespace for host in self.hosts] + ([self.switch_namespace] if self.switch_namespace else [])
        found += [f"namespace {name}" for name in names if namespace.exists(name)]
        if self.switch_namespace is None:
            with IPRoute() as ip:
                found += [f"interface {name}" for name in self.interfaces if ip.link_lookup(ifname=name)]
        return found

    # ── processes ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def start(self, argv: Sequence[str], *, host: str | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a process on a host, or where the switch's interfaces are; ``options`` are Popen's. ``close`` ends it."""
        where = self.switch_namespace if host is None else self[host].namespace
        process: subprocess.Popen[Any] = namespace.inside(where, partial(subprocess.Popen, argv, start_new_session=True, **options))
        self._processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[Any], seconds: float = TERMINATE_SECONDS) -> int:
        """SIGTERM, and SIGKILL to it and its children if it does not end in time; its return code."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def run(
        self, argv: Sequence[str], *, host: str | None = None, timeout: float = 60.0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and keep its output as text. Raises subprocess.TimeoutExpired, FileNotFoundError."""
        pipe = subprocess.PIPE
        process = self.start(argv, host=host, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            self.stop(process, 0.0)
            self._processes.remove(process)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    # ── traffic ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def ping(self, source: str, destination: str, family: int = 4, number: int = 2, wait: float = 5.0) -> PingResult:
        """``number`` echo requests, one after the other; each has ``wait`` seconds to come back.

        Each by a ``ping`` of its own: one that has had an answer waits for its last one hardly longer than for those before.
        """
        if shutil.which("ping") is None:
            raise LabError("the ping command is missing: apt-get install iputils-ping")
        argv = ["ping", f"-{family}", "-n", "-c", "1", "-W", str(wait), self[destination].address(family)]
        environment = {**os.environ, "LC_ALL": "C"}
        outputs = [self.run(argv, host=source, timeout=wait + 30, environment=environment).stdout for _ in range(number)]
        times = [float(time[1]) for output in outputs if (time := re.search(r"= ([0-9.]+)/", output))]
        received = sum(", 1 received" in output or ", 1 packets received" in output for output in outputs)
        return PingResult(source, destination, family, number, received, min(times, default=None))

    def ping_all(self, families: Sequence[int] = (4, 6), number: int = 2) -> Iterator[PingResult]:
        """Every ordered pair, one after the other; each result as it comes."""
        for family in families:
            for source, destination in permutations((host.name for host in self.hosts), 2):
                yield self.ping(source, destination, family, number)

    def transfer(self, source: str, destination: str, size: int, family: int = 4, timeout: float = 60.0) -> TransferResult:
        """``size`` bytes by TCP, checked at the other end."""
        to = self[destination]
        return transfer(self[source].namespace, to.namespace, to.address(family), size, timeout)

    def reaches(self, source: str, destination: str, port: int, family: int = 4, timeout: float = 1.0) -> bool:
        """Whether a TCP connection to a port of the destination comes about within ``timeout`` seconds. Something listens there."""
        address = self[destination].address(family)
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with self.inside(destination, partial(socket.create_server, (address, port), family=kind)):
            try:
                self.inside(source, partial(socket.create_connection, (address, port), timeout)).close()
            except TimeoutError:
                return False
            return True

    def inside(self, host: str | None, function: Callable[[], T]) -> T:
        """Call a function on a host (None: where the switch's interfaces are), for example to make a socket."""
        return namespace.inside(self.switch_namespace if host is None else self[host].namespace, function)


# ── what happens inside a namespace ────────────────────────────────────────────────────────────────────────────────────
def _set_up(interface: str) -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname=interface)[0], state="up")


def _wait_until_up(interface: str) -> None:
    """Before that the kernel throws away what the interface is to send. Raises LabError."""
    end = time.monotonic() + UP_SECONDS
    with IPRoute() as ip:
        while ip.link("get", ifname=interface)[0].get_attr("IFLA_OPERSTATE") != "UP":
            if time.monotonic() > end:
                raise LabError(f"the link of {interface} did not come up in {UP_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)


def _prepare_host() -> None:
    """No duplicate address detection, which would keep the addresses unusable for a second, and nothing that sends unasked once the
    host is set up: what it tells of its multicast groups then, it does not repeat a second later."""
    _set_up("lo")
    for name in ("accept_dad", "dad_transmits", "accept_ra", "router_solicitations"):
        for which in ("all", "default"):
            namespace.write_sysctl(f"net/ipv6/conf/{which}/{name}", 0)
    namespace.write_sysctl("net/ipv6/conf/default/mldv2_unsolicited_report_interval", _A_DAY_MS)


def _make_pair(host: Host) -> None:
    """The veth pair, from the switch's end; the switch's end itself speaks no IPv6."""
    with IPRoute() as ip:
        peer = {"ifname": host.interface, "net_ns_fd": host.namespace, "address": host.mac}
        ip.link("add", ifname=host.switch_interface, kind="veth", address=host.switch_mac, peer=peer)
        namespace.write_sysctl(f"net/ipv6/conf/{host.switch_interface}/disable_ipv6", 1)


def _set_up_host(host: Host, plan: LabHost) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=host.interface)[0]
        ip.link("set", index=index, state="up")
        for text, options in ((plan.address4, {}), (plan.address6, {"flags": _IFA_F_NODAD})):
            address, _, length = text.partition("/")
            ip.addr("add", index=index, address=address, prefixlen=int(length), **options)


def _delete_links(names: Sequence[str]) -> None:
    with IPRoute() as ip:
        for name in names:
            for index in ip.link_lookup(ifname=name):
                try:
                    ip.link("del", index=index)
                except NetlinkError:
                    continue  # it went with the namespace of its peer in the meantime
