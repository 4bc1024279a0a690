"""The far ends of the target's three links, in place of the tool's tester switch: raw packet sockets, counted and timed here.

The tool is drawn with a second OpenFlow switch that sends what it is told and reports what comes in. A raw socket does that
with nothing in between that could be slow, wrong or out of step: no flow cache that follows the barrier reply late, no
packet-outs that queue behind each other.

Invariant: a frame is handed on and counted with the bytes that were on the wire. The kernel takes the outermost VLAN tag off into
metadata before a socket sees the frame (it does so for any device); it is put back here.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

ETH_P_ALL = 0x0003
PACKET_AUXDATA = 8  # linux/if_packet.h
PACKET_IGNORE_OUTGOING = 23
SOL_PACKET = 263
SO_RCVBUFFORCE = 33
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_ANCILLARY_BYTES = socket.CMSG_SPACE(_AUXDATA.size)
_FRAME_BYTES = 65536
_RECEIVE_BUFFER = 64 << 20  # about three seconds of the fastest case, should this process not be scheduled

ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN = 0x0800, 0x86DD, 0x8100


@dataclass(frozen=True, slots=True)
class Filter:
    """What a throughput flow of the tool's tester matches. The tool's own cases ask for these three and no more."""

    in_port: int | None = None
    eth_type: int | None = None
    ip_dscp: int | None = None

    def takes(self, port: int, head: bytes) -> bool:
        """``head``: ethertype and the two bytes after it."""
        eth_type, first = struct.unpack("!HH", head)
        if self.in_port not in (None, port) or self.eth_type not in (None, eth_type):
            return False
        if self.ip_dscp is None:
            return True
        # IPv4: version, header length, DSCP, ECN. IPv6: version, traffic class (whose upper six bits are the DSCP), flow label.
        dscp = first >> 2 & 0x3F if eth_type == ETHERTYPE_IPV4 else first >> 6 & 0x3F
        return eth_type in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) and dscp == self.ip_dscp


class Wire:
    """``interfaces`` by port number, in the caller's network namespace. Nothing blocks: ``drain`` a socket when it is readable.

    Totals since the start, by port: ``sent`` and ``received`` packets.
    """

    def __init__(self, interfaces: Mapping[int, str]) -> None:
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self._packets: Counter[tuple[int, bytes]] = Counter()
        self._bytes: Counter[tuple[int, bytes]] = Counter()
        self._sockets = {port: _open(name) for port, name in interfaces.items()}

    def sockets(self) -> Mapping[int, socket.socket]:
        """By port number, to wait for."""
        return self._sockets

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()

    def send(self, port: int, frame: bytes) -> None:
        """Raises OSError if the link is down."""
        self._sockets[port].send(frame)
        self.sent[port] += 1

    def drain(self, port: int, most: int = 512) -> list[bytes]:
        """Take at most so many of the frames that are waiting at a port."""
        receive = self._sockets[port].recvmsg
        frames = []
        for _ in range(most):
            try:
                frame, ancillary, _, _ = receive(_FRAME_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            frames.append(frame := _with_tag(frame, ancillary))
            kind = (port, frame[12:16].ljust(4, b"\0"))
            self._packets[kind] += 1
            self._bytes[kind] += len(frame)
        self.received[port] += len(frames)
        return frames

    def count(self, wanted: Filter) -> tuple[int, int]:
        """Packets and bytes received since the start that a filter takes. Frames still waiting in the sockets come first."""
        for port in self._sockets:
            while self.drain(port):
                pass
        kinds = [kind for kind in self._packets if wanted.takes(*kind)]
        return sum(self._packets[kind] for kind in kinds), sum(self._bytes[kind] for kind in kinds)


def _open(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: nothing comes in before it is bound
    opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    opened.bind((interface, ETH_P_ALL))
    opened.setblocking(False)
    return opened


def _with_tag(frame: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = _AUXDATA.unpack(data[: _AUXDATA.size])
            if status & TP_STATUS_VLAN_VALID:
                tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else ETHERTYPE_VLAN
                return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
    return frame
