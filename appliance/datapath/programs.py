"""BPF programs that the kernel holds: enough of bpf(2) to say whose program is on an interface, and to call one of ours.

Invariant: what is attached stays so. Whose a program is, by id, the kernel tells CAP_SYS_ADMIN alone; without it the answer is
``None``, not an error.
Source: linux/bpf.h, ``union bpf_attr`` and ``struct bpf_prog_info``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.datapath.driver import DatapathError

BPF_PROG_LOAD = 5
BPF_PROG_TEST_RUN = 10
BPF_PROG_GET_NEXT_ID = 11
BPF_PROG_GET_FD_BY_ID = 13
BPF_OBJ_GET_INFO_BY_FD = 15

SCHED_CLS = 3
XDP = 6
BPF_F_XDP_HAS_FRAGS = 1 << 5

_SYSCALL_NUMBER = {"x86_64": 321, "i686": 357, "aarch64": 280, "riscv64": 280, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_ATTRIBUTE_BYTES = 16
_INFO_BYTES = 80  # up to and with bpf_prog_info.name
_INFO_ID = 4
_INFO_NAME = 64
_NAME_BYTES = 15
_LOG_BYTES = 1 << 22
_LOG_LINES = 40
_LOAD_ATTEMPTS = 20
"""The kernel gives a verification up when a signal comes, be it only that a stopped process is to go on. (libbpf makes five.)"""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """``name`` is what the loader called it, cut by the kernel to 15 bytes."""

    id: int
    name: str


def bpf(command: int, attribute: bytes) -> tuple[int, bytes]:
    """Call bpf(2); the result and the attribute as the kernel left it. Raises OSError."""
    number = _SYSCALL_NUMBER.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    result = _libc.syscall(number, command, buffer, len(attribute))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result, buffer.raw


def load(kind: int, name: str, instructions: bytes, log: ctypes.Array[ctypes.c_char] | None = None, flags: int = 0) -> int:
    """Load a program; its file descriptor. ``kind`` is BPF_PROG_TYPE_*, ``flags`` BPF_F_*. ``log`` takes the verifier's words.

    Raises OSError.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    head = struct.pack("=IIQQ", kind, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence))
    level, size, address = (1, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)
    attribute = head + struct.pack("=IIQII16s", level, size, address, 0, flags, name.encode()[:_NAME_BYTES])
    attempts = 1
    while True:
        try:
            return bpf(BPF_PROG_LOAD, attribute)[0]
        except BlockingIOError:  # EAGAIN
            if attempts == _LOAD_ATTEMPTS:
                raise
        attempts += 1


def load_verified(kind: int, what: str, name: str, instructions: bytes, flags: int = 0) -> int:
    """The same. Raises DatapathError with the verifier's last lines; ``what`` says whose program it is."""
    try:
        return load(kind, name, instructions, flags=flags)
    except OSError:
        pass
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return load(kind, name, instructions, log, flags)
    except OSError as error:
        lines = [line for line in log.value.decode(errors="replace").splitlines() if line.strip()]
        said = "\n".join("  " + line for line in lines[-_LOG_LINES:])
        raise DatapathError(f"cannot load {what}: {error.strerror}\n{said}".rstrip()) from error


def returns(value: int) -> bytes:
    """The instructions of ``return value``."""
    return struct.pack("<BBhi", 0xB7, 0, 0, value) + struct.pack("<BBhi", 0x95, 0, 0, 0)


def load_trivial() -> None:
    """Load the least program of a kind that we need, and let it go. Raises OSError if the kernel does not permit it."""
    os.close(load(SCHED_CLS, "ofswitch_probe", returns(0)))


_TEST_RUN = struct.Struct("=IIIIQQIIIIQQIIII")
_CONTEXT = struct.Struct("=48x5I")
"""struct __sk_buff up to its ``cb``."""
_GROWTH = 256
"""Bytes by which a program may make a frame longer."""


def call(fd: int, data: bytes) -> int:
    """Run a SCHED_CLS program once on ``data``, at least an Ethernet header, by BPF_PROG_TEST_RUN: no interface is concerned.

    Returns what the program returned. Raises OSError.
    """
    frame = ctypes.create_string_buffer(data, len(data))
    _, answer = bpf(BPF_PROG_TEST_RUN, _TEST_RUN.pack(fd, 0, len(data), 0, ctypes.addressof(frame), 0, 1, *[0] * 9))
    return int(struct.unpack_from("=i", answer, 4)[0])


def call_with(fd: int, data: bytes, control: tuple[int, int, int, int, int]) -> tuple[int, bytes]:
    """The same with ``control`` in the packet's ``cb``; returns the frame too, as the program left it. Raises OSError."""
    frame = ctypes.create_string_buffer(data, len(data))
    out = ctypes.create_string_buffer(len(data) + _GROWTH)
    context = ctypes.create_string_buffer(_CONTEXT.pack(*control), _CONTEXT.size)
    head = (fd, 0, len(data), len(out), ctypes.addressof(frame), ctypes.addressof(out), 1, 0, _CONTEXT.size, 0)
    _, answer = bpf(BPF_PROG_TEST_RUN, _TEST_RUN.pack(*head, ctypes.addressof(context), *[0] * 5))
    returned, _, size = struct.unpack_from("=iII", answer, 4)
    return returned, out.raw[:size]


def open_program(program_id: int) -> int | None:
    """A file descriptor of the program, for the caller to close; None if it is gone or we may not ask."""
    try:
        fd, _ = bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=I", program_id).ljust(_ATTRIBUTE_BYTES, b"\0"))
    except OSError:
        return None
    return fd


def describe(fd: int) -> Program:
    """The program behind a file descriptor. Raises OSError for a descriptor that is no program."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info)))
    (program_id,) = struct.unpack_from("=I", info.raw, _INFO_ID)
    name = info.raw[_INFO_NAME:].split(b"\0", 1)[0].decode("ascii", "replace")
    return Program(program_id, name)


def find(program_id: int) -> Program | None:
    """The program of this id; None if it is gone or we may not ask."""
    fd = open_program(program_id)
    if fd is None:
        return None
    try:
        return describe(fd)
    finally:
        os.close(fd)


def loaded(prefix: str = "") -> Iterator[Program]:
    """Every program in the kernel whose name starts with ``prefix``; none if we may not ask."""
    last = 0
    while True:
        try:
            _, answer = bpf(BPF_PROG_GET_NEXT_ID, struct.pack("=II", last, 0).ljust(_ATTRIBUTE_BYTES, b"\0"))
        except OSError:  # ENOENT: that was the last one; EPERM: we may not ask
            return
        _, last = struct.unpack_from("=II", answer)
        program = find(last)
        if program is not None and program.name.startswith(prefix):
            yield program
