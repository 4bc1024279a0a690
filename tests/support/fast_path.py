"""The real eBPF programs run on single frames by BPF_PROG_TEST_RUN, for tests: nothing is attached to anything.

The programs are compiled with TEST_RUN, which makes them stop at the n-th output, so that the frame at that moment comes back.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import pytest
from support.bursts import one_by_one

from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.layout import NO_OTHER_END, OpCode, PortFlag, number_at, port_ingress, port_place
from appliance.datapath.loader import Sizes
from appliance.datapath.programs import bpf
from appliance.model.fields import IN_PORT, KEY_BYTES, KEY_MASK, LAYERS
from appliance.model.megaflow import DatapathAction, Flood, Forward, Megaflow, Upcall, UpcallReason
from appliance.model.plugin import PluginFile
from appliance.model.ports import LOCAL_PORT, Hook
from appliance.model.tunnel import Tunnel, tunnel_of
from appliance.packet.parse import parse

BPF_PROG_TEST_RUN = 10
LOOPBACK_IFINDEX = 1
PORT_FLAGS = PortFlag.FORWARD | PortFlag.RECEIVE | PortFlag.XDP_TRANSMIT
LIVE_PORTS = {2}
TEST_STOPPED = 77
_MAX_FRAME = 65536
_TEST_RUN = struct.Struct(f"={KEY_BYTES}s6I3I3IBBH")


class Verdict(IntEnum):
    """What a program returned."""

    XDP_DROP = 1
    XDP_PASS = 2
    TC_SHOT = 2
    TC_STOLEN = 4


class Left(NamedTuple):
    """The tunnel by which a packet leaves: what the kernel is told."""

    tunnel: Tunnel
    tos: int
    ttl: int


@dataclass(frozen=True)
class Output:
    action: Forward | Flood
    frame: bytes
    tunnel: Tunnel
    """The packet's tunnel fields."""
    left: Left | None = None
    """How it left by a tunnel port; None: not at all, for want of a destination."""


@dataclass(frozen=True)
class Result:
    """``outputs`` in order, what the program returned at the end, and what it sent to the slow path."""

    outputs: tuple[Output, ...]
    code: int
    upcalls: tuple[Upcall, ...]
    key: int


def check_leaving(result: Result, leaving: Iterable[tuple[object, str, Tunnel]], *megaflows: int) -> None:
    """Whether this has left, in whichever order, and nothing else: action, frame in hexadecimal, tunnel fields."""
    left = [(output.action, output.frame.hex(), output.tunnel) for output in result.outputs]
    copied = [(upcall.controller, upcall.frame.hex(), tunnel_of(upcall.key)) for upcall in result.upcalls]
    assert Counter([*left, *copied]) == Counter(leaving)
    assert {(upcall.reason, upcall.megaflow_id) for upcall in result.upcalls} <= {
        (UpcallReason.COPY, number) for number in megaflows
    }


class FastPath:
    """One loaded instance; make it once a module: loading takes seconds."""

    def __init__(self, in_port: int, plugins: Sequence[PluginFile] = ()) -> None:
        self.datapath = BpfDatapath(Sizes(megaflows=1024, upcall_pages=64), defines=("-DTEST_RUN",), plugins=plugins)
        self._ids = itertools.count(1)
        self._out = ctypes.create_string_buffer(_MAX_FRAME)
        self.in_port = in_port
        self.came: Tunnel | None = None
        """The tunnel that frames come by."""
        self.left: Left | None = None
        """As in Output, of the last run."""
        self._come_in_on(in_port)
        for number in (in_port, 2, 3, LOCAL_PORT):
            flags = PORT_FLAGS | (PortFlag.LIVE if number in LIVE_PORTS else 0)
            record = struct.pack("=IIIIqQ", 1, flags, 1 << 16, 0, NO_OTHER_END, 0)
            self.datapath.programs.update("ports", port_place(number), record)

    def _come_in_on(self, port: int) -> None:
        self.datapath.programs.update("small_ifindex", LOOPBACK_IFINDEX, port_ingress(port, PORT_FLAGS))

    @contextmanager
    def coming_in_on(self, port: int) -> Iterator[None]:
        """Frames come in on another port meanwhile."""
        self._come_in_on(port)
        yield
        self._come_in_on(self.in_port)

    def close(self) -> None:
        self.datapath.close()

    def install_for(self, frame: bytes, actions: tuple[DatapathAction, ...]) -> int:
        """A megaflow that takes all packets of ``in_port`` with the same headers as this one; its id. It may be done by an edit."""
        return self.install(actions, parse(frame, self.in_port).key, IN_PORT.mask | LAYERS.mask)

    def install(self, actions: tuple[DatapathAction, ...], key: int | None = None, mask: int = IN_PORT.mask) -> int:
        """A megaflow that takes all packets of ``in_port``, unless ``key`` and ``mask`` say otherwise; its id."""
        number = next(self._ids)
        key = IN_PORT.put(0, self.in_port) if key is None else key
        assert self.datapath.install(Megaflow(number, key & mask, mask, actions))
        self.datapath.caught_up([number])
        return number

    def run(self, frame: bytes, hook: Hook, stop: int = 0, network_tag: bool = False) -> tuple[int, bytes, int, int, int]:
        """Return code, frame, and from the program's notes: key, op and port of the output where it stopped."""
        programs = self.datapath.programs
        came = (0,) * 4 if self.came is None else (1, *self.came)
        notes = _TEST_RUN.pack(bytes(KEY_BYTES), stop, 0, 0, 0, int(network_tag), *came, *bytes(6))
        programs.update("test_run", 0, notes)
        data = ctypes.create_string_buffer(frame, len(frame))
        fd = programs.tc_fd if hook is Hook.TC else programs.xdp_fd
        attribute = struct.pack(
            "=IIIIQQIIIIQQIIII",
            fd,
            0,
            len(frame),
            _MAX_FRAME,
            ctypes.addressof(data),
            ctypes.addressof(self._out),
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        )
        try:
            _, raw = bpf(BPF_PROG_TEST_RUN, attribute)
        except OSError as error:
            if hook is Hook.TC and error.errno == errno.EINVAL and frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                pytest.skip("the kernel makes no packet of a cut-off IP header for a test run")
            raise
        code, size = struct.unpack_from("=I", raw, 4)[0], struct.unpack_from("=I", raw, 12)[0]
        key, _, _, op, port, *_, left_id, left_src, left_dst, tos, ttl, nowhere = _TEST_RUN.unpack_from(
            programs.read("test_run", 0)
        )
        self.left = None if nowhere else Left(Tunnel(left_id, left_src, left_dst), tos, ttl)
        return code, self._out.raw[:size], int.from_bytes(key, "big"), op, port

    def execute(self, frame: bytes, hook: Hook, network_tag: bool = False) -> Result:
        """Run the frame until it has given all its outputs, and again: out of the cache then, by the express way, and when it has
        come twice in a row, as one that is repeated."""
        result = self.execute_once(frame, hook, network_tag)
        for _ in range(3):
            assert self.execute_once(frame, hook, network_tag) == result
        return result

    def execute_once(self, frame: bytes, hook: Hook, network_tag: bool = False) -> Result:
        outputs: list[Output] = []
        while True:
            self.datapath.upcalls(1 << 20)
            code, out, key, op, port = self.run(frame, hook, len(outputs) + 1, network_tag)
            if code != TEST_STOPPED:
                # Copies for the controllers came up from each run.
                return Result(tuple(outputs), code, tuple(one_by_one(self.datapath.upcalls(1 << 20))), key & KEY_MASK)
            outputs.append(Output(Flood() if op == OpCode.FLOOD else Forward(number_at(port)), out, tunnel_of(key), self.left))
