"""The eBPF driver on a testbed's veth pairs: frames put on a wire, what arrives by one, and what comes up."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.bursts import one_by_one
from support.waiting import SECONDS, readable

from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathPort
from appliance.datapath.loader import Sizes
from appliance.lab.testbed import Testbed
from appliance.model.fields import IN_PORT
from appliance.model.megaflow import Megaflow, Upcall
from appliance.model.ports import Hook

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
UPCALL_PAGES = 1024
QUIET = 0x88B5
"""An ethertype for experiments: what the hosts' own stacks send by themselves never has it."""


def new_datapath() -> BpfDatapath:
    return BpfDatapath(Sizes(megaflows=1024, upcall_pages=UPCALL_PAGES))


@contextmanager
def attached(bed: Testbed, datapath: BpfDatapath, hook: Hook = Hook.TC) -> Iterator[BpfDatapath]:
    """Ports 1, 2 and 3 on the hosts' wires, their counters 0; no megaflows afterwards."""
    for number, interface in enumerate(bed.interfaces, 1):
        bed.inside(None, lambda n=number, name=interface: datapath.attach(DatapathPort(n, name, socket.if_nametoindex(name), hook)))
    try:
        yield datapath
    finally:
        for number in (1, 2, 3):
            bed.inside(None, lambda number=number: datapath.detach(number))
        datapath.remove(range(1, 30_000))
        datapath.upcalls(100_000)


def packet_socket(interface: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    raw.bind((interface, ETH_P_ALL))
    raw.settimeout(SECONDS)
    return raw


def frame(number: int = 0, dst: str = "020000000002", ethertype: int = QUIET) -> bytes:
    return bytes.fromhex(dst) + bytes.fromhex("020000000001") + struct.pack(">HI", ethertype, number) + bytes(46)


def received(wire: socket.socket, number: int, ethertypes: tuple[int, ...] = (QUIET, 0x8100, 0x88A8)) -> list[bytes]:
    """Frames of our own that come in: so many, and if more come soon after, those; a tag that the kernel took off is put back."""
    frames: list[bytes] = []
    while True:
        wire.settimeout(SECONDS if len(frames) < number else 0.1)
        try:
            data, _, _, address = wire.recvmsg(65536, 256)
        except TimeoutError:
            return frames
        if address[2] != socket.PACKET_OUTGOING and int.from_bytes(data[12:14], "big") in ethertypes:
            frames.append(data)


def wait_upcalls(datapath: BpfDatapath, number: int) -> list[Upcall]:
    """Our own packets among the upcalls."""
    upcalls: list[Upcall] = []
    deadline = time.monotonic() + SECONDS
    while len(upcalls) < number and time.monotonic() < deadline:
        readable(datapath, 0.1)
        upcalls += [upcall for upcall in one_by_one(datapath.upcalls(1000)) if upcall.frame[12:14] == QUIET.to_bytes(2, "big")]
    return upcalls


def wait_upcalls_tagged(datapath: BpfDatapath, number: int) -> list[Upcall]:
    """The same, of packets with a tag."""
    upcalls: list[Upcall] = []
    deadline = time.monotonic() + SECONDS
    while len(upcalls) < number and time.monotonic() < deadline:
        upcalls += [upcall for upcall in one_by_one(datapath.upcalls(1000)) if upcall.frame[16:18] == QUIET.to_bytes(2, "big")]
    return upcalls


def from_port(number: int, megaflow_id: int, *actions: object) -> Megaflow:
    return Megaflow(megaflow_id, IN_PORT.put(0, number), IN_PORT.mask, actions)  # type: ignore[arg-type]
