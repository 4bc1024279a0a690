"""What tests of the agent share: a switch without a kernel, controllers in processes of their own, and waiting.

Everything runs in the test's own thread: while a test waits by ``until``, the agent's greenlets run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from appliance.agent.agent import Agent
from appliance.agent.green import sleep
from appliance.agent.links import Placement
from appliance.config import Config
from appliance.datapath.fake import FakeDatapath
from appliance.model.actions import ApplyActions, Output
from appliance.model.match import MATCH_ALL
from appliance.model.ports import Hook, Port, PortCounters, PortState
from appliance.model.queues import QueueCounters
from appliance.openflow.codec import decode, encode
from appliance.openflow.messages import EchoReply, EchoRequest, FlowMod, Hello, Message
from appliance.ports import End, Finished, Interface, LinkChange, LocalSpec, OutputMethod, PortError, QueueRates, TunnelDevice

ROOT = Path(__file__).parents[2]
STOCK = ROOT / "tests" / "system" / "stock"

STOCK_RUNNER = """
import os, sys
os.environ["OSKEN_HUB_TYPE"] = "eventlet"
from os_ken.base.app_manager import AppManager
from os_ken import cfg
import os_ken.controller.controller
cfg.CONF(args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", sys.argv[1]], project="os_ken")
AppManager.run_apps(sys.argv[2:])
"""
"""How os-ken's own documentation starts apps, with nothing of ours in the process."""


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Let the agent run until ``condition`` gives something true, which is returned."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition}")
        sleep(0.005)
    return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ── the machine ────────────────────────────────────────────────────────────────────────────────────────────────────────
def mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number])


def interface(number: int, *, up: bool = True, name: str = "") -> Interface:
    return Interface(name or f"eth{number}", 100 + number, mac(number), "", 1500, True, up, False)


class FakeLinks:
    """Interfaces that a test makes, changes and takes away."""

    def __init__(self, *interfaces: Interface) -> None:
        self.known: dict[int, Interface] = {item.ifindex: item for item in interfaces}
        self.promiscuous: set[int] = set()
        self.claims: set[str] = set()
        self.claimed_by_others: set[str] = set()
        self.queues: dict[int, tuple[tuple[QueueRates, ...], int]] = {}
        """Queues and the port's speed by ifindex."""
        self.advertised: dict[str, int] = {}
        self.tunnel_devices: dict[int, TunnelDevice] = {}
        self.outputs: dict[int, OutputMethod] = {}
        """By ifindex; none is straight where nothing is said."""
        self.hindrances: dict[int, str] = {}
        """Why an interface takes none of BIG TCP's frames, by ifindex; all others do."""
        self.enlarged: set[int] = set()
        """By ifindex."""
        self._serial = count(50)
        self.closed = False
        self._changes: list[LinkChange] = []
        self._event = os.eventfd(0, os.EFD_NONBLOCK)

    def change(self, ifindex: int, after: Interface | None) -> None:
        self._changes.append(LinkChange(self.known.get(ifindex), after))
        if after is None:
            del self.known[ifindex]
        else:
            self.known[ifindex] = after
        os.eventfd_write(self._event, 1)

    def change_filters(self, ifindex: int) -> None:
        """TC's filters came or went."""
        self._changes.append(LinkChange(self.known[ifindex], self.known[ifindex], filters=True))
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        return self._event

    def changes(self) -> list[LinkChange]:
        if self._changes:
            os.eventfd_read(self._event)
        changes, self._changes = self._changes, []
        return changes

    def claim(self, what: str) -> None:
        if what in self.claimed_by_others:
            raise PortError("another switch has it")
        self.claims.add(what)

    def release(self, what: str) -> None:
        self.claims.discard(what)

    def place(self, interface: Interface, requested: str) -> Placement:
        return Placement(Hook.TC, "a test")

    def xdp_transmit(self, interface: Interface) -> bool:
        return False

    def finish_frames(self, interface: Interface, *, generic: bool) -> Finished:
        return Finished(True, "a test's frames are finished")

    def adopt_offloads(self, interface: Interface, *, generic: bool) -> None:
        pass

    def restore_offloads(self, ifindex: int) -> None:
        pass

    def ends(self, interface: Interface) -> Sequence[End]:
        return [End(None, interface.ifindex)]

    def big_tcp_hindrance(self, interface: Interface, ours: Collection[End]) -> str:
        assert End(None, interface.ifindex) in ours
        return self.hindrances.get(interface.ifindex, "")

    def enlarge_frames(self, interface: Interface) -> str:
        self.enlarged.add(interface.ifindex)
        return ""

    def restore_frames(self, interface: Interface) -> None:
        self.enlarged.discard(interface.ifindex)

    def choose_output(self, interface: Interface) -> OutputMethod:
        return self.outputs.get(interface.ifindex, OutputMethod(b"", ""))

    def describe(self, interface: Interface, number: int) -> Port:
        return Port(number, interface.name, interface.mac, state=PortState.LIVE if interface.up else PortState.LINK_DOWN)

    def counters(self, ifindexes: Iterable[int]) -> Mapping[int, PortCounters]:
        return {ifindex: PortCounters(rx_errors=3) for ifindex in ifindexes if ifindex in self.known}

    def set_queues(self, ifindex: int, queues: Sequence[QueueRates], speed: int) -> None:
        self.queues[ifindex] = (tuple(queues), speed)

    def queue_counters(self, ifindex: int, queue_ids: Iterable[int]) -> Mapping[int, QueueCounters]:
        return {queue_id: QueueCounters(1000 * ifindex, 10 * queue_id, 3) for queue_id in queue_ids}

    def advertise(self, interface: Interface, features: int) -> None:
        self.advertised[interface.name] = features

    def set_promiscuous(self, ifindex: int, on: bool) -> bool:
        before = ifindex in self.promiscuous
        (self.promiscuous.add if on else self.promiscuous.discard)(ifindex)
        return before != on

    def make_local(self, spec: LocalSpec, mtu: int) -> Interface:
        self.known[99] = replace(interface(0, name=spec.host, up=False), ifindex=99, mac=spec.mac, mtu=mtu)
        self.known[100] = replace(interface(0, name=spec.end, up=False), mtu=mtu)
        return self.known[100]

    def remove_local(self, spec: LocalSpec) -> None:
        for ifindex in [known.ifindex for known in self.known.values() if known.name in (spec.host, spec.end)]:
            del self.known[ifindex]

    def make_tunnel_device(self, device: TunnelDevice) -> Interface:
        known = next((item for item in self.known.values() if item.name == device.name), None)
        if known is None:
            known = replace(interface(next(self._serial), name=device.name), kind=device.kind, mtu=65000)
            self.change(known.ifindex, known)
        self.tunnel_devices[known.ifindex] = device
        return known

    def remove_tunnel_devices(self, switch: str, keep: Collection[str] = ()) -> list[str]:
        gone = {
            ifindex: item.name for ifindex, item in self.tunnel_devices.items() if item.switch == switch and item.name not in keep
        }
        for ifindex in gone:
            del self.tunnel_devices[ifindex], self.known[ifindex]
        return list(gone.values())

    def close(self) -> None:
        self.closed = True
        os.close(self._event)


# ── the agent ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class Box:
    """An agent with three ports, eth1 to eth3, and what is around it."""

    def __init__(self, tmp_path: Path, **config: Any) -> None:
        self.links = FakeLinks(*(interface(number) for number in (1, 2, 3)))
        self.datapath = FakeDatapath(time.monotonic)
        values: dict[str, Any] = {
            "ports": tuple(f"eth{number}={number}" for number in (1, 2, 3)),
            "control_socket": str(tmp_path / "control.sock"),
            "datapath_id": 0x2A,
            "local": False,
        }
        self.config = Config.model_validate({**values, **config})
        self.agent = Agent(self.config, self.datapath, self.links)

    def inject(self, port: int, frame: bytes) -> None:
        self.datapath.inject(port, frame)

    def sent(self) -> list[tuple[int, bytes]]:
        """(port, frame) of what left since the last call."""
        sent, self.datapath.sent = self.datapath.sent, []
        return sent

    def connected(self) -> list[dict[str, Any]]:
        return [item for item in self.agent.connections.describe() if item["state"] == "connected"]


@contextmanager
def running(tmp_path: Path, **config: Any) -> Iterator[Box]:
    """An agent that runs while the block does, and has then closed without a fault."""
    box = Box(tmp_path, **config)
    try:
        box.agent.start()
        yield box
        assert box.agent.faults == 0, "the log says what"
    finally:
        box.agent.close()


def frame(eth_dst: int, eth_src: int, payload: bytes = b"") -> bytes:
    """Of a local experimental type, so that nothing in it is parsed."""
    return mac(eth_dst) + mac(eth_src) + b"\x88\xb5" + payload.ljust(46, b"\0")


BROADCAST = b"\xff" * 6


def until_forwarding(box: Box) -> None:
    """An app installs its table-miss entry before os-ken lets it have packet-ins."""
    until(lambda: any(len(table) for table in box.agent.switch.tables), what="the table-miss entry")
    first = frame(0xFE, 0xFD)

    def passed() -> bool:
        box.inject(3, first)
        sleep(0.1)
        return any(data == first for _, data in box.sent())

    until(passed, what="the app at work")


def passed_on(box: Box, port: int, data: bytes) -> list[int]:
    """The ports by which a frame that comes in leaves."""
    box.inject(port, data)
    return until(lambda: [out for out, left in box.sent() if left == data])


# ── controllers ────────────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def stock_controller(port: int, *apps: Path) -> Iterator[subprocess.Popen[bytes]]:
    """os-ken in a process of its own, with nothing of ours in it."""
    command = [sys.executable, "-c", STOCK_RUNNER, str(port), *map(str, apps or (STOCK / "os_ken_simple_switch_13.py",))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Peer:
    """A controller in the test itself, at the other end of a socket: it says what it is told to, and keeps what it hears."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.setblocking(False)
        self.heard: list[Message] = []
        self._received = b""

    @classmethod
    def connect(cls, port: int, address: str = "127.0.0.1") -> Peer:
        """To an agent that listens."""
        return cls(socket.create_connection((address, port)))

    def send(self, *messages: Message) -> None:
        data = b"".join(map(encode, messages))
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                sleep(0.001)

    def greet(self) -> None:
        self.send(Hello((4,)))
        self.expect(Hello)

    def expect(self, kind: type[Message], seconds: float = 60.0) -> Any:
        """The next message of a kind; those before it are passed over. Echo requests are answered."""

        def find() -> Message | None:
            self.read()
            while self.heard:
                message = self.heard.pop(0)
                if isinstance(message, kind):
                    return message
            return None

        return until(find, seconds, f"a {kind.__name__}")

    def read(self) -> bool:
        """Take what has come; False at the end of the stream."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if not data:
            return False
        self._received += data
        while len(self._received) >= 8 and len(self._received) >= (length := int.from_bytes(self._received[2:4], "big")):
            message = decode(self._received[:length])
            self._received = self._received[length:]
            if isinstance(message, EchoRequest):
                self.send(EchoReply(message.data, xid=message.xid))
            self.heard.append(message)
        return True

    def ended(self, seconds: float = 5.0) -> None:
        """Wait for the end of the stream."""
        until(lambda: not self.read(), seconds, "the end of the connection")

    def close(self) -> None:
        self.socket.close()


class Listener:
    """Where an agent may connect to controllers of the test."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.create_server(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def accept(self, seconds: float = 60.0) -> Peer:
        def take() -> Peer | None:
            try:
                return Peer(self.socket.accept()[0])
            except BlockingIOError:
                return None

        peer: Peer = until(take, seconds, "a connection")
        return peer

    def close(self) -> None:
        self.socket.close()


def flow_mod(output: int, **more: object) -> FlowMod:
    return FlowMod(match=MATCH_ALL, instructions=(ApplyActions((Output(output),)),), **more)  # type: ignore[arg-type]
