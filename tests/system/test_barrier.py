"""After a barrier reply no packet is forwarded by the rules before it (invariant 3), with traffic throughout."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.running_switch import LISTEN_PORT, RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.lab.testbed import Testbed
from appliance.model.actions import ApplyActions, Output
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.openflow.codec import decode, encode
from appliance.openflow.messages import BarrierReply, BarrierRequest, Error, FlowMod, FlowModCommand, Hello, Message

pytestmark = pytest.mark.root

SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
SWITCHES = 60
FORWARDED = 100
"""Packets by the fast path after each."""
QUIET = 0x88B5

SENDER = """
import itertools, socket, struct, sys, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((sys.argv[1], 0))
head = bytes.fromhex("020000000002020000000001") + struct.pack(">H", 0x88B5)
for number in itertools.count():
    try:
        wire.send(head + number.to_bytes(8, "big") + bytes(40))
    except OSError:
        pass
    time.sleep(0.00002)  # else the reader below would never catch up
"""


class Controller:
    """Just enough of one: sends, and waits for the barrier reply."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = b""
        self._socket.sendall(encode(Hello((4,))))

    def change(self, out_port: int) -> int:
        """Modify the flow entry and send a barrier; the time (ns) when its reply had come."""
        match = Match.of([MatchField(BY_NAME["in_port"], 1)])
        flow = FlowMod(
            command=FlowModCommand.ADD, priority=5, match=match, instructions=(ApplyActions((Output(out_port),)),), xid=out_port
        )
        self._socket.sendall(encode(flow) + encode(BarrierRequest(xid=99)))
        while True:
            message = self._next()
            assert not isinstance(message, Error), message
            if isinstance(message, BarrierReply):
                return time.time_ns()

    def _next(self) -> Message:
        while len(self._received) < 8 or len(self._received) < struct.unpack_from(">H", self._received, 2)[0]:
            self._received += self._socket.recv(65536)
        length = struct.unpack_from(">H", self._received, 2)[0]
        raw, self._received = self._received[:length], self._received[length:]
        return decode(raw)


@contextmanager
def traffic(bed: Testbed) -> Iterator[None]:
    process = bed.start([sys.executable, "-c", SENDER, bed["h1"].interface], host="h1", stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        bed.stop(process)


def listening(interface: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(QUIET))
    wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
    wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    wire.bind((interface, QUIET))
    wire.setblocking(False)
    return wire


def arrivals(wire: socket.socket) -> list[int]:
    """When each packet that waits had arrived, in ns."""
    times = []
    while True:
        try:
            _, ancillary, _, _ = wire.recvmsg(128, 128)
        except BlockingIOError:
            return times
        seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
        times.append(seconds * 10**9 + nanoseconds)


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    with Testbed.of(3) as bed, running_switch(bed, tmp_path_factory.mktemp("switch")) as running:
        yield running


def test_nothing_goes_the_old_way_after_the_barrier_reply(switch: RunningSwitch) -> None:
    bed = switch.bed
    wires = {port: bed.inside(f"h{port}", lambda port=port: listening(bed[f"h{port}"].interface)) for port in (2, 3)}
    connection = bed.inside(None, lambda: socket.create_connection(("127.0.0.1", LISTEN_PORT), SECONDS))
    with connection, wires[2], wires[3]:
        controller = Controller(connection)
        controller.change(2)
        with traffic(bed):
            for number in range(SWITCHES):
                new, old = (3, 2) if number % 2 == 0 else (2, 3)
                replied = controller.change(new)
                forwarded = switch.packets()["tc"]
                until(lambda: switch.packets()["tc"] > forwarded + FORWARDED, "the fast path at work")  # noqa: B023
                late = [at - replied for at in arrivals(wires[old]) if at > replied]
                assert not late, f"{len(late)} packets by the old rule, up to {max(late)} ns after the reply"
                arrived: list[int] = []
                until(lambda: arrived.extend(arrivals(wires[new])) or len(arrived) > FORWARDED, "those packets")  # noqa: B023
