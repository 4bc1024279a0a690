"""The connection's states: negotiation, echoes, errors, silence, bounds. Every cause of every transition is had at least once."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

import pytest

from appliance.model.actions import ApplyActions, Output
from appliance.model.match import MATCH_ALL
from appliance.openflow import connection as c
from appliance.openflow import messages as m
from appliance.openflow.codec import decode, encode
from appliance.openflow.connection import Cause, Connection, ConnectionClosed, MessageReceived, Negotiated, State
from appliance.openflow.constants import MORE, MessageType, MultipartType
from appliance.openflow.errors import BadInstruction, BadRequest, ErrorType, HelloFailed

HELLO = encode(m.Hello((4,), 4, xid=1))


def message(kind: int, body: bytes = b"", *, version: int = 4, xid: int = 9) -> bytes:
    return pack("!BBHI", version, kind, 8 + len(body), xid) + body


def sent(connection: Connection) -> list[m.Message]:
    """What the connection wants sent, as messages."""
    raw = connection.data_to_send()
    messages = []
    while raw:
        length = int.from_bytes(raw[2:4], "big")
        messages.append(decode(raw[:length]))
        raw = raw[length:]
    return messages


def opened() -> Connection:
    connection = Connection()
    connection.data_to_send()
    assert connection.receive_data(HELLO, 100.0) == [Negotiated(4)]
    return connection


def part(body: bytes, flags: int, *, xid: int = 9, kind: int = MultipartType.TABLE_FEATURES) -> bytes:
    return message(MessageType.MULTIPART_REQUEST, pack("!HH4x", kind, flags) + body, xid=xid)


# ── opening ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_says_hello_first() -> None:
    connection = Connection()
    assert connection.queued_bytes == 16
    raw = connection.data_to_send()
    assert raw == bytes.fromhex("04000010 00000001 00010008 00000010".replace(" ", ""))
    assert connection.data_to_send() == b""
    assert connection.state is State.HELLO


AGREED = {
    "bitmap of 1.3": m.Hello((4,), 4),
    "bitmap with 1.3 in it": m.Hello((1, 4, 5, 6), 6),
    "bitmap counts, not the header": m.Hello((4,), 1),
    "1.3 without a bitmap": m.Hello((), 4),
    "1.5 without a bitmap": m.Hello((), 6),
}
DISAGREED = {
    "bitmap of 1.0": m.Hello((1,), 1),
    "bitmap without 1.3": m.Hello((1, 5), 5),
    "bitmap counts, not the header": m.Hello((5,), 4),
    "1.0 without a bitmap": m.Hello((), 1),
    "1.2 without a bitmap": m.Hello((), 3),
    "version 0": m.Hello((), 0),
}


@pytest.mark.parametrize("hello", AGREED.values(), ids=AGREED.keys())
def test_agrees(hello: m.Hello) -> None:
    connection = Connection()
    connection.data_to_send()
    assert connection.receive_data(encode(hello), 0.0) == [Negotiated(4)]
    assert connection.state is State.OPEN
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("hello", DISAGREED.values(), ids=DISAGREED.keys())
def test_disagrees(hello: m.Hello) -> None:
    connection = Connection()
    connection.data_to_send()
    (event,) = connection.receive_data(encode(hello), 0.0)
    assert isinstance(event, ConnectionClosed)
    assert connection.state is State.CLOSED
    (error,) = sent(connection)
    assert (error.type, error.code) == (ErrorType.HELLO_FAILED, HelloFailed.INCOMPATIBLE)
    assert b"OpenFlow 1.3 is spoken here" in error.data
    assert error.data.decode() == event.reason


def test_only_versions_that_the_codec_speaks() -> None:
    for versions in (frozenset({1, 4}), frozenset({6}), frozenset()):
        with pytest.raises(ValueError, match="codec speaks 4"):
            Connection(versions)


@pytest.mark.parametrize(
    "first",
    [
        encode(m.FeaturesRequest()),
        encode(m.EchoRequest(b"x")),
        b"GET / HTTP/1.1\r\n",
        bytes.fromhex("16030102000100 01"),
    ],
    ids=["features request", "echo request", "HTTP", "TLS"],
)
def test_hello_comes_first(first: bytes) -> None:
    """Judged by the header: the rest of what a web browser sends never comes."""
    connection = Connection()
    connection.data_to_send()
    (event,) = connection.receive_data(first, 0.0)
    assert isinstance(event, ConnectionClosed)
    (error,) = sent(connection)
    assert (error.type, error.code) == (ErrorType.HELLO_FAILED, HelloFailed.INCOMPATIBLE)
    assert b"Hello comes first" in error.data


def test_the_peer_refuses() -> None:
    connection = Connection()
    connection.data_to_send()
    refusal = message(MessageType.ERROR, pack("!HH", 0, 0) + b"only\r\n1.0", version=1)
    assert connection.receive_data(refusal, 0.0) == [ConnectionClosed("the peer refused: HELLO_FAILED/INCOMPATIBLE only??1.0")]
    assert connection.data_to_send() == b""


def test_an_error_that_cannot_be_read_instead_of_a_hello() -> None:
    connection = Connection()
    (event,) = connection.receive_data(message(MessageType.ERROR, b"x"), 0.0)
    assert isinstance(event, ConnectionClosed)


def test_what_comes_right_after_the_hello_is_read() -> None:
    connection = Connection()
    events = connection.receive_data(HELLO + encode(m.FeaturesRequest(xid=5)) + encode(m.BarrierRequest(xid=6))[:5], 0.0)
    assert events == [Negotiated(4), MessageReceived(0, m.FeaturesRequest(xid=5), encode(m.FeaturesRequest(xid=5)))]
    assert connection.receive_data(encode(m.BarrierRequest(xid=6))[5:], 0.0)[0].message == m.BarrierRequest(xid=6)


def test_a_second_hello_is_passed_over() -> None:
    connection = opened()
    assert connection.receive_data(HELLO, 101.0) == []
    assert connection.data_to_send() == b""
    assert connection.state is State.OPEN


# ── passing messages ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_messages_are_queued_in_order() -> None:
    connection = opened()
    connection.send(m.BarrierReply(xid=1))
    connection.send(m.EchoRequest(b"x", xid=2))
    assert connection.queued_bytes == 17
    assert sent(connection) == [m.BarrierReply(xid=1), m.EchoRequest(b"x", xid=2)]
    assert connection.queued_bytes == 0


def test_nothing_is_sent_before_a_version_is_agreed_on() -> None:
    with pytest.raises(RuntimeError, match="BarrierReply"):
        Connection().send(m.BarrierReply())


def test_nothing_passes_once_closed() -> None:
    connection = opened()
    connection.receive_data(b"\4\5\0\7\0\0\0\0" + encode(m.BarrierRequest()), 101.0)
    assert connection.state is State.CLOSED
    connection.data_to_send()
    connection.send(m.BarrierReply())
    assert connection.data_to_send() == b""
    assert connection.receive_data(encode(m.BarrierRequest()), 102.0) == []
    assert connection.tick(1000.0) == []
    assert connection.timer() is None


@pytest.mark.parametrize("data", [b"", b"ping", bytes(65527)], ids=len)
def test_echo_requests_are_answered(data: bytes) -> None:
    connection = opened()
    assert connection.receive_data(encode(m.EchoRequest(data, xid=77)), 101.0) == []
    assert sent(connection) == [m.EchoReply(data, xid=77)]


def test_errors_from_the_peer_are_passed_on() -> None:
    connection = opened()
    error = m.Error(1, 1, b"x", xid=3)
    assert connection.receive_data(encode(error), 101.0) == [MessageReceived(0, error, encode(error))]


# ── what is wrong ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_ill_formed_message_gets_its_error_and_the_connection_goes_on() -> None:
    connection = opened()
    actions = (ApplyActions((Output(1),) * 10),)
    wrong = bytearray(encode(m.FlowMod(instructions=actions, xid=0xABCD)))
    wrong[56:58] = b"\0\7"  # the instruction's type
    events = connection.receive_data(bytes(wrong) + encode(m.BarrierRequest(xid=2)), 101.0)
    assert [event.message for event in events] == [m.BarrierRequest(xid=2)]
    assert sent(connection) == [m.Error(ErrorType.BAD_INSTRUCTION, BadInstruction.UNKNOWN_INST, bytes(wrong[:64]), xid=0xABCD)]


def test_a_short_message_is_quoted_whole() -> None:
    connection = opened()
    wrong = message(99, b"abc")
    assert connection.receive_data(wrong, 101.0) == []
    assert sent(connection) == [m.Error(ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE, wrong, xid=9)]


def test_another_version_after_the_hello() -> None:
    connection = opened()
    wrong = message(MessageType.BARRIER_REQUEST, version=1)
    assert connection.receive_data(wrong, 101.0) == []
    assert sent(connection) == [m.Error(ErrorType.BAD_REQUEST, BadRequest.BAD_VERSION, wrong, xid=9)]
    assert connection.state is State.OPEN


@pytest.mark.parametrize("length", range(8))
@pytest.mark.parametrize("state", [State.HELLO, State.OPEN])
def test_a_length_that_cannot_be_ends_it(state: State, length: int) -> None:
    connection = opened() if state is State.OPEN else Connection()
    connection.data_to_send()
    wrong = pack("!BBHI", 4, 0, length, 5) + b"x" * 100
    (event,) = connection.receive_data(wrong, 101.0)
    assert isinstance(event, ConnectionClosed)
    assert connection.state is State.CLOSED
    assert sent(connection) == [m.Error(ErrorType.BAD_REQUEST, BadRequest.BAD_LEN, wrong[:64], xid=5)]


# ── silence ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_silent_peer_is_probed_and_then_given_up() -> None:
    connection = opened()
    assert connection.timer() == 105.0
    assert connection.tick(104.9) == []
    assert connection.data_to_send() == b""
    assert connection.tick(105.0) == []
    (probe,) = sent(connection)
    assert isinstance(probe, m.EchoRequest)
    assert connection.timer() == 110.0
    assert connection.tick(109.9) == []
    assert connection.data_to_send() == b""
    assert connection.tick(110.0) == [ConnectionClosed("no answer to an echo request in 5 s")]
    assert connection.state is State.CLOSED
    assert connection.data_to_send() == b""


def test_an_answer_to_the_probe_is_no_event_and_starts_anew() -> None:
    connection = opened()
    connection.tick(105.0)
    (probe,) = sent(connection)
    assert connection.receive_data(encode(m.EchoReply(b"", xid=probe.xid)), 106.0) == []
    assert connection.timer() == 111.0
    connection.tick(111.0)
    assert [type(item) for item in sent(connection)] == [m.EchoRequest]


def test_any_byte_breaks_the_silence() -> None:
    connection = opened()
    connection.receive_data(encode(m.BarrierRequest())[:1], 104.0)
    assert connection.timer() == 109.0


def test_no_hello_is_silence_too() -> None:
    """Whatever else comes: a Hello of 65,535 bytes that trickles in keeps nobody waiting."""
    connection = Connection(probe_interval=2.0)
    assert connection.timer() is None
    assert connection.tick(50.0) == []
    assert connection.timer() == 54.0
    assert connection.receive_data(pack("!BBHI", 4, 0, 0xFFFF, 1), 53.0) == []
    assert connection.tick(54.0) == [ConnectionClosed("no Hello in 4 s")]


def test_without_a_probe_interval_silence_lasts() -> None:
    connection = Connection(probe_interval=0)
    connection.receive_data(HELLO, 0.0)
    assert connection.timer() is None
    assert connection.tick(1e9) == []
    assert connection.state is State.OPEN


# ── multipart requests in parts ────────────────────────────────────────────────────────────────────────────────────────
def table(number: int) -> bytes:
    return pack("!HB5x32sQQII", 64, number, b"t", 0, 0, 0, 0)


def numbers(event: c.Event) -> list[int]:
    assert isinstance(event, MessageReceived)
    assert isinstance(event.message, m.MultipartRequest)
    assert event.message.flags == 0
    return [entry.table_id for entry in event.message.body.tables]


def test_parts_are_joined() -> None:
    """Also where a part ends inside a table, and where two requests come at the same time."""
    connection = opened()
    first, second = table(1) + table(2), table(3)
    assert connection.receive_data(part(first[:100], MORE, xid=1), 101.0) == []
    assert connection.receive_data(part(table(7), MORE, xid=2), 101.0) == []
    assert connection.receive_data(part(first[100:], MORE, xid=1), 101.0) == []
    (event,) = connection.receive_data(part(second, 0, xid=1), 101.0)
    assert numbers(event) == [1, 2, 3]
    assert event.message.xid == 1
    assert event.raw == part(second, 0, xid=1)
    (event,) = connection.receive_data(part(b"", 0, xid=2), 101.0)
    assert numbers(event) == [7]
    (event,) = connection.receive_data(part(table(9), 0, xid=1), 101.0)
    assert numbers(event) == [9]
    assert connection.data_to_send() == b""


def test_too_many_bytes_in_parts() -> None:
    """One error, and nothing of the request is carried out, however many parts still come."""
    connection = opened()
    piece = table(1) * 1000
    events = [connection.receive_data(part(piece, MORE), 101.0) for _ in range(40)]
    assert not any(events)
    errors = sent(connection)
    assert [(error.type, error.code, error.xid) for error in errors] == [
        (ErrorType.BAD_REQUEST, BadRequest.MULTIPART_BUFFER_OVERFLOW, 9)
    ]
    assert connection.receive_data(part(table(1), 0), 101.0) == []
    assert connection.data_to_send() == b""
    (event,) = connection.receive_data(part(table(2), 0), 101.0)
    assert numbers(event) == [2]


def test_the_bound_is_for_all_requests_together() -> None:
    connection = opened()
    piece = table(1) * 1000
    for xid in range(16):
        connection.receive_data(part(piece, MORE, xid=xid), 101.0)
    assert connection.data_to_send() == b""
    connection.receive_data(part(piece, MORE, xid=0), 101.0)
    assert [error.code for error in sent(connection)] == [BadRequest.MULTIPART_BUFFER_OVERFLOW]


def test_too_many_requests_in_parts() -> None:
    connection = opened()
    events = [event for xid in range(17) for event in connection.receive_data(part(b"", MORE, xid=xid), 101.0)]
    assert events == [ConnectionClosed("too many multipart requests at once")]
    (error,) = sent(connection)
    assert (error.type, error.code, error.xid) == (ErrorType.BAD_REQUEST, BadRequest.MULTIPART_BUFFER_OVERFLOW, 16)


def test_parts_of_another_type() -> None:
    connection = opened()
    connection.receive_data(part(table(1), MORE), 101.0)
    assert connection.receive_data(part(b"", 0, kind=MultipartType.DESC), 101.0) == []
    assert [error.code for error in sent(connection)] == [BadRequest.BAD_MULTIPART]
    (event,) = connection.receive_data(part(table(2), 0), 101.0)
    assert numbers(event) == [2]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (part(b"", 0, kind=14), BadRequest.BAD_MULTIPART),
        (message(MessageType.MULTIPART_REQUEST, bytes(4)), BadRequest.BAD_LEN),
        (b"\1" + part(b"", MORE)[1:], BadRequest.BAD_VERSION),
        (part(b"", MORE, kind=14) + part(b"", 0, kind=14), BadRequest.BAD_MULTIPART),
    ],
    ids=["unknown", "short", "version", "unknown in parts"],
)
def test_multipart_requests_that_are_wrong(wrong: bytes, code: BadRequest) -> None:
    connection = opened()
    assert connection.receive_data(wrong, 101.0) == []
    assert [error.code for error in sent(connection)] == [code]
    (event,) = connection.receive_data(part(table(2), 0, xid=10), 101.0)
    assert numbers(event) == [2]


# ── bounds ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_peer_that_asks_and_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_QUEUED_BYTES", 1 << 20)
    connection = opened()
    echo = encode(m.EchoRequest(bytes(60_000)))
    events: list[c.Event] = []
    for _ in range(100):
        events += connection.receive_data(echo, 101.0)
        assert connection.queued_bytes <= (1 << 20) + len(echo)
    (event,) = events
    assert isinstance(event, ConnectionClosed)
    assert "does not read" in event.reason


def test_a_peer_that_does_not_read_what_it_did_not_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_QUEUED_BYTES", 1 << 20)
    connection = opened()
    for _ in range(100):
        connection.send(m.EchoReply(bytes(60_000)))
        assert connection.queued_bytes <= (1 << 20) + 60_008
    assert connection.timer() == 100.0
    (event,) = connection.tick(100.5)
    assert isinstance(event, ConnectionClosed)
    assert connection.state is State.CLOSED
    assert connection.data_to_send() == b""


def test_a_peer_that_reads_may_have_any_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_QUEUED_BYTES", 1 << 20)
    connection = opened()
    for _ in range(100):
        connection.send(m.EchoReply(bytes(60_000)))
        connection.data_to_send()
    assert connection.tick(100.5) == []


# ── long answers ───────────────────────────────────────────────────────────────────────────────────────────────────────
def long_answer(entries: int) -> tuple[m.MultipartReply, list[int]]:
    """And the cookies of those that have been made."""
    made: list[int] = []

    def make() -> Iterator[m.FlowStats]:
        for cookie in range(entries):
            made.append(cookie)
            yield m.FlowStats(0, 1, 2, 3, 0, 0, m.FlowModFlags.NONE, cookie, 4, 5, MATCH_ALL, ())

    return m.MultipartReply(m.FlowStatsReply(make()), xid=5), made


def test_a_long_answer_is_made_while_it_is_sent_between_what_came_before_and_after() -> None:
    connection = opened()
    connection.send(m.BarrierReply(xid=4))
    answer, made = long_answer(5000)
    connection.send(answer)
    connection.send(m.BarrierReply(xid=6))
    assert not made
    messages = sent(connection)
    assert [message.xid for message in messages] == [4], "nothing waits for the answer"
    before = 0
    while connection.queued_bytes:
        part = sent(connection)
        messages += part
        assert len(part) == 1
        assert len(made) - before < 2500, "no more than it takes"
        before = len(made)
    assert [message.xid for message in messages] == [4, *[5] * (len(messages) - 2), 6]
    parts = [message for message in messages if isinstance(message, m.MultipartReply)]
    assert len(parts) > 2
    assert [part.flags for part in parts] == [MORE] * (len(parts) - 1) + [0]
    cookies = [entry.cookie for part in parts if isinstance(part.body, m.FlowStatsReply) for entry in part.body.entries]
    assert cookies == made == list(range(5000))
    assert connection.data_to_send() == b""


def test_long_answers_that_nobody_reads_pile_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_QUEUED_BYTES", 4 << 20)
    connection = opened()
    for _ in range(5):
        connection.send(long_answer(1000)[0])
    (event,) = connection.tick(100.5)
    assert isinstance(event, ConnectionClosed)
    assert "does not read" in event.reason
    assert (connection.data_to_send(), connection.queued_bytes) == (b"", 0)


# ── pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_byte_at_a_time() -> None:
    messages = [
        m.FeaturesRequest(xid=1),
        m.EchoRequest(b"abc", xid=2),
        m.FlowMod(match=MATCH_ALL, instructions=(ApplyActions((Output(2),)),), xid=3),
        m.MultipartRequest(m.DescRequest(), xid=4),
        m.BarrierRequest(xid=5),
    ]
    stream = HELLO + b"".join(encode(item) for item in messages) + message(99)
    whole, pieces = Connection(), Connection()
    events = whole.receive_data(stream, 1.0)
    assert [event for index in range(len(stream)) for event in pieces.receive_data(stream[index : index + 1], 1.0)] == events
    assert whole.data_to_send() == pieces.data_to_send()
    assert [event.message.xid for event in events[1:]] == [1, 3, 4, 5]


# ── the table of states ────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_state_but_the_last_can_be_left_and_every_cause_moves_something() -> None:
    assert {state for state, _ in c.TRANSITIONS} == {State.HELLO, State.OPEN}
    assert {cause for _, cause in c.TRANSITIONS} == set(Cause)
    assert set(c.TRANSITIONS.values()) == {State.OPEN, State.CLOSED}
