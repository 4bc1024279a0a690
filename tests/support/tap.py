"""A cable between two taps, as a virtual machine's network card is: what one kernel leaves to the card to finish, the other gets.

Frames are carried with their virtio header, so that segmentation and checksums stay open from one end to the other.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.lab import namespace

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_CSUM, _TSO4, _TSO6 = 1, 2, 4
_LONGEST = 70_000


def _open_tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _CSUM | _TSO4 | _TSO6)
    return fd


@contextmanager
def tap_cable(*ends: tuple[str | None, str]) -> Iterator[None]:
    """Each of the two ends is (namespace, name). The taps are there, down, while the block is."""
    fds = [namespace.inside(where, lambda name=name: _open_tap(name)) for where, name in ends]  # type: ignore[misc]
    other = {fds[0]: fds[1], fds[1]: fds[0]}
    stop, tell = os.pipe()

    def carry() -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (*fds, stop):
                selector.register(fd, selectors.EVENT_READ)
            while True:
                readable = {key.fd for key, _ in selector.select()}
                if stop in readable:
                    return
                for fd in readable:
                    try:
                        os.write(other[fd], os.read(fd, _LONGEST))
                    except OSError:
                        continue  # the other end is down

    thread = threading.Thread(target=carry, name="tap cable")
    thread.start()
    try:
        yield
    finally:
        os.write(tell, b".")
        thread.join()
        for fd in (*fds, stop, tell):
            os.close(fd)
