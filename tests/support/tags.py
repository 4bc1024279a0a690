"""Tags on what a host sends and receives, by BPF: a VLAN interface without one, for kernels that have none.

As with a VLAN interface, the outermost tag is beside the frame when the frame gets to the device below, and in the frame only if
the device does not take it so.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pyroute2 import IPRoute

from appliance.datapath import programs
from appliance.lab import namespace

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_VLAN_PUSH, _VLAN_POP = 18, 19
_GO_ON = -1


def _instruction(code: int, registers: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, 0, number)


def _program(calls: Sequence[tuple[int, int, int]]) -> bytes:
    """Call each helper with the packet and two numbers."""
    code = _instruction(0xBF, 0x16)  # r6 = r1
    for helper, second, third in calls:
        code += _instruction(0xBF, 0x61) + _instruction(0xB7, 2, second) + _instruction(0xB7, 3, third)
        code += _instruction(0x85, 0, helper)
    return code + _instruction(0xB7, 0, _GO_ON) + _instruction(0x95)


@contextmanager
def tagged(where: str, device: str, tags: Sequence[tuple[int, int]]) -> Iterator[None]:
    """All that leaves by the device meanwhile has these tags, (type, VLAN id), the outermost first; what comes in loses as many."""
    push = _program([(_VLAN_PUSH, socket.htons(kind), vid) for kind, vid in reversed(tags)])
    pop = _program([(_VLAN_POP, 0, 0) for _ in tags])

    def attach() -> None:
        with IPRoute() as ip:
            index = ip.link_lookup(ifname=device)[0]
            ip.tc("add", "clsact", index)
            for name, code, parent in (("push", push, EGRESS), ("pop", pop, INGRESS)):
                fd = programs.load(programs.SCHED_CLS, name, code)
                ip.tc("add-filter", "bpf", index, fd=fd, name=name, parent=parent, direct_action=True)
                os.close(fd)

    def detach() -> None:
        with IPRoute() as ip:
            ip.tc("del", "clsact", ip.link_lookup(ifname=device)[0])

    namespace.inside(where, attach)
    try:
        yield
    finally:
        namespace.inside(where, detach)
