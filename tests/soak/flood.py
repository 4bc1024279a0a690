"""A host that floods the switch with flows that nobody has seen, in a process of its own: ``flood.py INTERFACE SEED PACKETS``.

At some ten thousand packets a second: the slow path has more than it can do, the kernel's queue of packets to be received has not.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from contextlib import suppress
from random import Random

BURST = 64
PAUSE_SECONDS = 0.005


def main(interface: str, seed: str, packets: str) -> None:
    """Raises OSError when the interface is down, or has gone."""
    rnd = Random(seed)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((interface, 0))
        for number in range(int(packets)):
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, rnd.randbytes(4), rnd.randbytes(4))
            wire.send(b"\x02" + rnd.randbytes(5) + b"\x02" + rnd.randbytes(5) + b"\x08\x00" + ip + rnd.randbytes(4) + bytes(16))
            if number % BURST == 0:
                time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    with suppress(OSError):
        main(*sys.argv[1:])
