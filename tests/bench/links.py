"""Veth pairs in the namespace of the caller."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import subprocess
from collections.abc import Sequence

from kernel import BenchError
from pyroute2 import IPRoute

from appliance.lab import namespace

_SIOCETHTOOL = 0x8946
_ETHTOOL_SGRO = 0x2C
_IFREQ_BYTES = 40


def veth(one: str, other: str) -> tuple[int, int]:
    """A pair, up, that sends nothing by itself; both indices."""
    with IPRoute() as ip:
        ip.link("add", ifname=one, kind="veth", peer={"ifname": other})
        indices = (ip.link_lookup(ifname=one)[0], ip.link_lookup(ifname=other)[0])
        for name, index in zip((one, other), indices, strict=True):
            namespace.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
            ip.link("set", index=index, state="up")
    return indices


def veth_to(one: str, other: str, there: str, mac: str) -> tuple[int, int]:
    """The same with the other end, which has this address, in another namespace."""
    with IPRoute() as ip:
        ip.link("add", ifname=one, kind="veth", peer={"ifname": other, "net_ns_fd": there, "address": mac})
        index = ip.link_lookup(ifname=one)[0]
        namespace.write_sysctl(f"net/ipv6/conf/{one}/disable_ipv6", 1)
        ip.link("set", index=index, state="up")
    return index, namespace.inside(there, lambda: _set_up(other))


def _set_up(name: str) -> int:
    with IPRoute() as ip:
        index: int = ip.link_lookup(ifname=name)[0]
        namespace.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
        ip.link("set", index=index, state="up")
    return index


def command(argv: Sequence[str], **options: object) -> str:
    """Run it to its end; what it printed. Raises BenchError."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise BenchError(f"{argv[0]} is not installed") from error
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return str(done.stdout)


def needs_napi(interface: str) -> None:
    """GRO makes a veth poll, without which live frames that are redirected to its peer are dropped."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_SGRO, 1), 8)
    request = struct.pack(f"16sP{_IFREQ_BYTES - 16 - struct.calcsize('P')}x", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
