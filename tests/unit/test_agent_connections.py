"""Connections to controllers: coming, going, and those who do not read."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise

import pytest
from agent_support import Listener, Peer, free_port, until

from appliance.agent import channel as channel_module
from appliance.agent import connections as connections_module
from appliance.agent import outgoing as outgoing_module
from appliance.agent.connections import Connections
from appliance.agent.green import Readable, sleep
from appliance.agent.outgoing import Backoff
from appliance.config import ControllerAddress, ListenAddress
from appliance.model.match import MATCH_ALL
from appliance.model.megaflow import PacketInReason
from appliance.openflow import connection as wire
from appliance.openflow.messages import BarrierReply, BarrierRequest, EchoReply, EchoRequest, Error, Hello, Message, PacketIn
from appliance.openflow.packet_ins import PacketInHead, PacketIns


class Side:
    """A switch that only listens."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.messages: list[Message] = []
        self.answer: Connections | None = None
        self.fails = False
        self.pauses = 0

    def opened(self, connection: int, version: int, auxiliary_id: int, main: int | None) -> None:
        self.told.append(("opened", connection, version))

    def message(self, event: wire.MessageReceived) -> None:
        connection, message, _ = event
        self.messages.append(message)
        if self.fails:
            raise ZeroDivisionError
        if self.answer is not None and isinstance(message, BarrierRequest):
            self.answer.send(connection, BarrierReply(xid=message.xid))

    def closed(self, connection: int) -> None:
        self.told.append(("closed", connection))

    def paused(self) -> None:
        self.pauses += 1


@pytest.fixture
def side():
    return Side()


@pytest.fixture
def connections(side):
    made = Connections(side, frozenset({4}))
    yield made
    made.stop("the test is over")


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.close()


def listening(connections: Connections, text: str = "") -> int:
    return connections.listen(ListenAddress.model_validate(text or f"ptcp:{free_port()}"))


def packet_in(size: int) -> PacketIn:
    return PacketIn(0xFFFFFFFF, size, PacketInReason.ACTION, 0, 0, MATCH_ALL, bytes(size))


def packet_ins(frames: list[bytes]) -> PacketIns:
    return PacketIns(PacketInHead(PacketInReason.ACTION, 0, 0, MATCH_ALL), frames)


# ── out ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_delays_double_up_to_the_longest_and_are_never_just_the_same():
    backoff = Backoff()
    delays = [backoff.delay() for _ in range(6)]
    for delay, base in zip(delays, (1, 2, 4, 8, 8, 8), strict=True):
        assert 0.8 * base <= delay <= 1.2 * base
    assert len({delay / base for delay, base in zip(delays, (1, 2, 4, 8, 8, 8), strict=True)}) == 6
    backoff.reset()
    assert backoff.delay() <= 1.2


def test_the_first_try_comes_at_once(connections, side, listener):
    connections.connect("127.0.0.1", lambda: listener.port, "name", Backoff(first=1000.0))
    peer = listener.accept()
    peer.greet()
    until(lambda: side.told == [("opened", 1, 4)])
    peer.close()


def test_it_tries_again_with_growing_delays_and_says_why_once(connections, caplog):
    port = free_port()
    tries: list[float] = []

    def asked() -> int:
        tries.append(time.monotonic())
        return port

    connections.connect("127.0.0.1", asked, "name", Backoff(first=0.05, longest=0.2, jitter=0.0))
    until(lambda: len(tries) == 6)
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    for gap, wanted in zip(gaps, (0.05, 0.1, 0.2, 0.2, 0.2), strict=True):
        assert wanted <= gap
    assert caplog.text.count("name: not connected: Connection refused") == 1
    assert connections.describe() == [{"target": "name", "state": "disconnected", "problem": "Connection refused"}]


def test_a_connection_that_ends_is_made_anew_with_another_number(connections, side, listener):
    connections.connect("127.0.0.1", lambda: listener.port, "name", Backoff(first=0.05))
    for number in (1, 2, 3):
        peer = listener.accept()
        peer.greet()
        until(lambda number=number: side.told[-1:] == [("opened", number, 4)])
        peer.close()
        until(lambda number=number: side.told[-1:] == [("closed", number)])


def test_a_controller_that_hangs_up_at_once_is_not_tried_faster(connections, listener):
    connections.connect("127.0.0.1", lambda: listener.port, "name", Backoff(first=0.05, longest=0.4, jitter=0.0))
    began = time.monotonic()
    for _ in range(5):
        listener.accept().close()
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2 + 0.4 - 0.05


def test_a_steady_connection_resets_the_delay(connections, listener, monkeypatch):
    monkeypatch.setattr(outgoing_module, "STEADY_SECONDS", 0.1)
    backoff = Backoff(first=0.05, longest=1000.0, jitter=0.0)
    for _ in range(20):
        backoff.delay()
    connections.connect("127.0.0.1", lambda: listener.port, "name", backoff)
    peer = listener.accept()
    peer.greet()
    sleep(0.15)
    peer.close()
    listener.accept().close()


def test_a_host_name_is_looked_up_and_all_its_addresses_are_tried(connections, side, listener):
    # localhost may be ::1 first, where nobody listens.
    connections.connect_to(ControllerAddress.model_validate(f"tcp:localhost:{listener.port}"))
    listener.accept().greet()
    until(lambda: side.told)


def test_a_host_name_that_nobody_knows_is_told(connections, caplog):
    connections.connect_to(ControllerAddress.model_validate("tcp:nosuchhost.invalid:6653"))
    until(lambda: "tcp:nosuchhost.invalid:6653: not connected: " in caplog.text)


def test_a_controller_of_another_version_is_refused_in_words(connections, side, listener):
    connections.connect("127.0.0.1", lambda: listener.port, "name", Backoff())
    peer = listener.accept()
    peer.send(Hello((1,), 1))
    error = peer.expect(Error)
    assert (error.type, error.code) == (0, 0)
    peer.ended()
    assert side.told == []
    until(lambda: connections.describe()[0]["state"] == "disconnected")
    assert "OpenFlow 1.3 is spoken here" in connections.describe()[0]["problem"]


# ── in ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("text", ["ptcp:{}", "ptcp:{}:127.0.0.1", "ptcp:{}:0.0.0.0", "ptcp:{}:[::1]", "ptcp:{}:[::]"])
def test_controllers_may_connect(connections, side, text):
    port = listening(connections, text.format(free_port()))
    peer = Peer.connect(port, "::1" if "::1" in text else "127.0.0.1")
    peer.greet()
    until(lambda: side.told == [("opened", 1, 4)])
    peer.close()
    until(lambda: side.told[1:] == [("closed", 1)])


def test_without_an_address_only_this_machine_may_connect(connections):
    listening(connections)
    ((_, listener),) = connections._listeners
    assert listener.getsockname()[0] == "127.0.0.1"


def test_too_many_connections_are_turned_away(connections, monkeypatch):
    monkeypatch.setattr(connections_module, "MAX_INCOMING", 2)
    port = listening(connections)
    peers = [Peer.connect(port) for _ in range(3)]
    for peer in peers[:2]:
        peer.greet()
    peers[2].ended()
    peers[0].close()
    until(lambda: len(connections.describe()) == 1)
    peers[0] = Peer.connect(port)
    peers[0].greet()
    for peer in peers:
        peer.close()


def test_messages_come_in_order_and_a_pause_is_told_behind_them(connections, side):
    port = listening(connections)
    peer = Peer.connect(port)
    peer.greet()
    until(lambda: side.pauses == 1)
    peer.send(*(BarrierRequest(xid=number) for number in range(20000)))
    until(lambda: len(side.messages) == 20000)
    assert [message.xid for message in side.messages] == list(range(20000))
    before = side.pauses
    until(lambda: side.pauses > before or side.pauses >= 2)
    peer.close()


BUSY_PEER = """
import socket, sys, time
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.sendall(bytes.fromhex("0400000800000001"))
answers = peer.makefile("rb")
answers.read(int.from_bytes(answers.read(4)[2:], "big") - 4)
for number in range(int(sys.argv[2])):
    time.sleep(float(sys.argv[3]))
    peer.sendall(bytes.fromhex("04140008") + number.to_bytes(4, "big"))
    assert answers.read(8) == bytes.fromhex("04150008") + number.to_bytes(4, "big")
"""


def test_one_that_asks_again_as_soon_as_it_is_answered_leaves_others_their_turn(connections, side):
    """In a process of its own, so that it can be as quick as it likes."""
    side.answer = connections
    requests = 3000
    busy = subprocess.Popen([sys.executable, "-c", BUSY_PEER, str(listening(connections)), str(requests), "0"])
    seen: set[int] = set()

    def ended() -> bool:
        seen.add(len(side.messages))
        return busy.poll() is not None

    until(ended)
    assert busy.returncode == 0, "each barrier got its own answer"
    assert len(side.messages) == requests
    assert len(seen - {0, requests}) > 5


@pytest.mark.parametrize("linger", [10.0, 0.0])
def test_nobody_goes_to_sleep_for_one_that_is_always_back_in_time_and_for_no_other(connections, side, monkeypatch, linger):
    monkeypatch.setattr(channel_module, "LINGER_SECONDS", linger)
    lingered: list[float] = []
    soon = Readable.soon

    def linger_through(self: Readable, seconds: float) -> bool:
        """What the test itself has to do meanwhile does not count."""
        lingered.append(seconds)
        until(lambda: soon(self, seconds))
        return True

    monkeypatch.setattr(Readable, "soon", linger_through)
    side.answer = connections
    requests = 50
    peer = subprocess.Popen([sys.executable, "-c", BUSY_PEER, str(listening(connections)), str(requests), "0.001"])
    until(lambda: peer.poll() is not None)
    assert peer.returncode == 0, "each barrier got its own answer"
    assert len(side.messages) == requests
    assert bool(lingered) == bool(linger)


def test_lingering_in_vain_is_soon_given_up(connections, side, monkeypatch):
    monkeypatch.setattr(channel_module, "LINGER_SECONDS", 10.0)
    tried: list[int] = []
    monkeypatch.setattr(Readable, "soon", lambda self, seconds: bool(tried.append(len(side.messages))))
    side.answer = connections
    requests = 200
    peer = subprocess.Popen([sys.executable, "-c", BUSY_PEER, str(listening(connections)), str(requests), "0.001"])
    until(lambda: peer.poll() is not None)
    assert len(side.messages) == requests
    assert 2 <= len(tried) <= 4  # after 4, 16, 64 … times that it was back in time


def test_framing_lost_closes_the_connection_with_an_error(connections, side):
    peer = Peer.connect(listening(connections))
    peer.greet()
    peer.socket.send(b"\x04\x00\x00\x07\x00\x00\x00\x09")
    assert peer.expect(Error).xid == 9
    peer.ended()
    until(lambda: side.told[-1] == ("closed", 1))


def test_a_silent_controller_is_probed_and_one_that_answers_stays(connections, side):
    peer = Peer.connect(listening(connections))
    peer.greet()
    until(lambda: side.told)
    began = time.monotonic()
    connections.tick(began + 6)
    echo = peer.expect(EchoRequest)
    sleep(0.05)  # the answer is on its way: ``expect`` has sent it
    assert side.told == [("opened", 1, 4)]
    connections.tick(began + 10)
    peer.send(EchoReply(echo.data, xid=echo.xid))
    assert len(connections.describe()) == 1
    connections.tick(time.monotonic() + 100)
    peer.expect(EchoRequest)
    connections.tick(time.monotonic() + 200)
    peer.ended()
    until(lambda: side.told[-1] == ("closed", 1))


def test_a_message_for_a_connection_that_is_gone_reaches_nobody(connections, side):
    port = listening(connections)
    first = Peer.connect(port)
    first.greet()
    until(lambda: side.told)
    first.close()
    until(lambda: len(side.told) == 2)
    second = Peer.connect(port)
    second.greet()
    until(lambda: side.told[-1] == ("opened", 2, 4))
    connections.send(1, BarrierReply(xid=1))
    connections.send(2, BarrierReply(xid=2))
    assert second.expect(BarrierReply).xid == 2


# ── those who do not read ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def slow(connections, side):
    """A controller that has said hello and reads no more."""
    peer = Peer.connect(listening(connections))
    peer.greet()
    until(lambda: side.told)
    yield peer
    peer.close()


def fill(connections: Connections, size: int) -> None:
    """Let more than ``size`` bytes wait for connection 1, once the kernel's buffers are full."""
    full = 0
    while full < 3:
        if connections.describe()[0]["backlog"] <= size:
            full = 0
            for _ in range(16):
                connections.send(1, EchoReply(bytes(60000)))
            sleep(0)
        else:
            full += 1
            sleep(0.02)


def test_packet_ins_for_it_are_dropped_and_counted_and_others_get_theirs(connections, side, slow):
    other = Peer.connect(listening(connections))
    other.greet()
    until(lambda: len(side.told) == 2)
    fill(connections, channel_module.PACKET_IN_BYTES)
    backlog = connections.describe()[0]["backlog"]
    for _ in range(100):
        connections.send(1, packet_in(1000))
        connections.send(2, packet_in(1000))
    assert connections.describe()[0]["dropped_packet_ins"] == 100
    assert connections.describe()[0]["backlog"] == backlog
    for _ in range(100):
        other.expect(PacketIn)
    slow.close()
    until(lambda: len(connections.describe()) == 1)
    assert connections.dropped_packet_ins == 100
    other.close()


def test_many_packet_ins_at_once_are_queued_as_far_as_there_is_room(connections, slow, monkeypatch):
    fill(connections, channel_module.PACKET_IN_BYTES)
    backlog = connections.describe()[0]["backlog"]
    monkeypatch.setattr(channel_module, "PACKET_IN_BYTES", backlog + 200_000)
    many = packet_ins([bytes(1000)] * 500)
    connections.send_packet_ins(1, many)
    queued = many.within(200_000)
    assert 0 < queued < 500
    described = connections.describe()[0]
    assert (described["dropped_packet_ins"], described["backlog"]) == (500 - queued, backlog + queued * (1000 + many.head.octets))
    connections.send_packet_ins(1, many)
    assert connections.describe()[0]["dropped_packet_ins"] == 1000 - queued
    for _ in range(queued):
        assert slow.expect(PacketIn).data == bytes(1000)


def test_what_is_gathered_is_on_its_way_at_the_end(connections, side):
    """No other greenlet has run then."""
    peers = [Peer.connect(port) for port in [listening(connections)] * 2]
    for peer in peers:
        peer.greet()
    until(lambda: len(side.told) == 2)
    connections.gather()
    for number in (1, 2):
        connections.send(number, BarrierReply(xid=number))
        connections.send_packet_ins(number, packet_ins([b"a" * 60, b"b" * 99]))
        connections.send(number, BarrierReply(xid=number + 5))
    assert all(described["backlog"] for described in connections.describe())
    connections.write_gathered()
    assert not any(described["backlog"] for described in connections.describe())
    for number, peer in enumerate(peers, 1):
        assert peer.expect(BarrierReply).xid == number
        assert [peer.expect(PacketIn).data for _ in range(2)] == [b"a" * 60, b"b" * 99]
        assert peer.expect(BarrierReply).xid == number + 5
        peer.close()


def test_messages_that_are_no_packet_ins_all_reach_one_that_reads_late(connections, slow):
    fill(connections, channel_module.PACKET_IN_BYTES)
    connections.send(1, BarrierReply(xid=77))
    assert slow.expect(BarrierReply).xid == 77


def test_nothing_more_is_read_from_it_until_it_reads(connections, side, slow):
    fill(connections, channel_module.PAUSE_BYTES)
    slow.send(BarrierRequest(xid=5))
    sleep(0.2)
    assert side.messages == []

    def arrived() -> bool:
        slow.read()
        return [message.xid for message in side.messages] == [5]

    until(arrived)


def test_one_that_reads_slowly_is_not_given_up(connections, side, slow):
    fill(connections, 2 * channel_module.PAUSE_BYTES)
    now = time.monotonic()
    for second in range(3):
        taken = 0
        while taken < 1 << 20:
            taken += len(slow.socket.recv(1 << 16))
            sleep(0.001)
        connections.tick(now + 20 * (second + 1))
    assert side.told == [("opened", 1, 4)]


def test_one_that_never_reads_again_is_given_up(connections, side, slow, monkeypatch):
    monkeypatch.setattr(channel_module, "FLUSH_SECONDS", 0.1)
    fill(connections, channel_module.PAUSE_BYTES)
    now = time.monotonic()
    for later in (1, 20, 40):
        connections.tick(now + later)
        sleep(0.01)
    until(lambda: side.told[-1] == ("closed", 1))


def test_one_that_lets_too_much_pile_up_is_given_up(connections, side, slow, monkeypatch):
    monkeypatch.setattr(channel_module, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(wire, "MAX_QUEUED_BYTES", 1 << 23)
    connection = connections._channels[1].connection
    while connection.queued_bytes <= wire.MAX_QUEUED_BYTES:
        fill(connections, connections.describe()[0]["backlog"])
    connections.tick(time.monotonic())
    until(lambda: side.told[-1] == ("closed", 1))


def test_a_fault_of_ours_closes_that_connection_only(connections, side, slow, caplog):
    other = Peer.connect(listening(connections))
    other.greet()
    until(lambda: len(side.told) == 2)

    side.fails = True
    other.send(BarrierRequest())
    other.ended()
    until(lambda: side.told[-1] == ("closed", 2))
    assert "fault of the switch itself" in caplog.text
    assert len(connections.describe()) == 1
