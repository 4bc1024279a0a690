"""The controllers of the switch: connections that come, go, and take each other's role.

Invariant: one of those that are connected may always change the switch (``leader``), as long as any is connected.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

from support.waiting import SECONDS

from appliance.openflow.codec import decode, encode
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    Error,
    FlowMod,
    FlowModCommand,
    FlowRemoved,
    Hello,
    Message,
    MultipartReply,
    MultipartRequest,
    MultipartRequestBody,
    PacketIn,
    PortStatus,
    Role,
    RoleReply,
    RoleRequest,
)

MOST = 3
"""Controllers at once."""
UNUSED_TABLE = 253
_OFPT_PACKET_IN = 10
_HEADER = struct.Struct(">BBHI")


class ControllerError(Exception):
    """The switch closed the connection, or did not answer."""


class Controller:
    """One connection. A thread reads what comes, so that echo requests are answered whatever else is being done."""

    def __init__(self, connection: socket.socket) -> None:
        self.role = Role.EQUAL
        self.told: list[Message] = []
        """Flow-removed and port-status messages."""
        self._packet_ins: list[bytes] = []
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._last_xid = 0
        self._socket = connection
        self._socket.settimeout(None)
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="controller", daemon=True)
        self._thread.start()
        self._send(Hello((4,)))

    def close(self) -> None:
        with suppress(OSError):  # if the switch has closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def ask(self, *messages: Message) -> list[Message]:
        """Send them and a barrier; what is answered to them, in order."""
        numbered = [_with_xid(message, xid) for xid, message in enumerate(messages, self._last_xid + 1)]
        barrier = self._last_xid = self._last_xid + len(messages) + 1
        self._send(*numbered, BarrierRequest(xid=barrier))
        answers: list[Message] = []
        while True:
            try:
                answer = self._answers.get(timeout=SECONDS)
            except queue.Empty:
                raise ControllerError(f"no barrier reply in {SECONDS:.0f} s") from None
            if answer is None:
                raise ControllerError("the switch closed the connection")
            if isinstance(answer, BarrierReply) and answer.xid == barrier:
                return answers
            answers.append(answer)

    def refused(self, *messages: Message) -> dict[int, Error]:
        """Send them and a barrier; which of them, by their places, were refused, and how."""
        first = self._last_xid + 1
        answers = self.ask(*messages)
        return {answer.xid - first: answer for answer in answers if isinstance(answer, Error)}

    def request(self, body: MultipartRequestBody) -> list[Any]:
        """The bodies of a multipart request's replies."""
        answers = self.ask(MultipartRequest(body))
        bodies = [answer.body for answer in answers if isinstance(answer, MultipartReply)]
        assert bodies, (body, answers)
        return bodies

    def entries(self, body: MultipartRequestBody) -> list[Any]:
        """The same where they are lists."""
        return [entry for reply in self.request(body) for entry in reply.entries]

    def take_packet_ins(self) -> list[PacketIn]:
        """Those that have come since this was asked last."""
        taken, self._packet_ins = self._packet_ins, []
        return [message for message in map(decode, taken) if isinstance(message, PacketIn)]

    # ── the connection ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _send(self, *messages: Message) -> None:
        try:
            with self._sending:
                self._socket.sendall(b"".join(map(encode, messages)))
        except OSError as error:
            raise ControllerError(f"the switch closed the connection: {error}") from error

    def _read(self) -> None:
        received = bytearray()
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                self._answers.put(None)
                return
            received += data
            at = 0
            while len(received) - at >= _HEADER.size:
                _, kind, length, _ = _HEADER.unpack_from(received, at)
                if len(received) - at < length:
                    break
                self._take(kind, bytes(received[at : at + length]))
                at += length
            del received[:at]

    def _take(self, kind: int, raw: bytes) -> None:
        if kind == _OFPT_PACKET_IN:  # there may be thousands, of which nobody wants to know more
            self._packet_ins.append(raw)
            return
        message = decode(raw)
        match message:
            case EchoRequest():
                try:
                    self._send(EchoReply(message.data, xid=message.xid))
                except ControllerError:
                    return
            case FlowRemoved() | PortStatus():
                self.told.append(message)
            case Hello():
                pass
            case _:
                self._answers.put(message)


def _with_xid(message: Message, xid: int) -> Message:
    return message._replace(xid=xid) if isinstance(message, FlowMod) else replace(message, xid=xid)  # type: ignore[type-var]


class Controllers:
    """``connect`` opens a connection to the switch."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._connected: list[Controller] = []
        self._generation = 0

    def __len__(self) -> int:
        return len(self._connected)

    @property
    def leader(self) -> Controller:
        """One that may change the switch. Where all are slaves, the first becomes their master."""
        leading = [controller for controller in self._connected if controller.role is not Role.SLAVE]
        if not leading:
            self._become(self._connected[0], Role.MASTER)
            return self._connected[0]
        return leading[0]

    def come(self) -> None:
        controller = Controller(self._connect())
        self._connected.append(controller)
        controller.ask()

    def go(self, number: int) -> None:
        self._connected.pop(number).close()

    def go_all(self) -> None:
        while self._connected:
            self.go(0)

    def change_role(self, rnd: Random) -> str:
        """One becomes the master, a slave, or equal; what a slave orders must be refused. What happened, in words."""
        number, role = rnd.randrange(len(self)), rnd.choice((Role.EQUAL, Role.MASTER, Role.SLAVE))
        self._become(self._connected[number], role)
        for controller in self._connected:
            refused = controller.refused(FlowMod(table_id=UNUSED_TABLE, command=FlowModCommand.DELETE))
            assert len(refused) == (controller.role is Role.SLAVE), (controller.role, refused)
        return f"controller {number} of {len(self)} becomes {role.name}"

    def _become(self, controller: Controller, role: Role) -> None:
        self._generation += 1
        (reply,) = controller.ask(RoleRequest(role, self._generation))
        assert isinstance(reply, RoleReply), reply
        assert reply.role is role, reply
        if role is Role.MASTER:
            for other in self._connected:
                if other.role is Role.MASTER:
                    other.role = Role.SLAVE
        controller.role = role
