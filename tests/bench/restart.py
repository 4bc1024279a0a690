"""Restart: packets lost when the switch is killed (``kill -9``), started again, and given its flow entries again, under traffic.

A host sends all the while. Open vSwitch (netdev) is not measured: its packets go through the process that dies.

Invariant: the new process was ready, and had its flow entries, before the traffic ended.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack

import frames
from kernel import BenchError, Kernel
from product import Product
from results import Aim, Row
from rig import OURS, ours

GROUP = "restart"
FLOWS = ("in_port=1,actions=output:2", "in_port=2,actions=output:1")
PACE_SECONDS = 0.0002
ALONE_SECONDS = 0.5
"""From the kill to the start of the new process."""
LATE_SECONDS = 60.0


class Restart:
    def __init__(self, programs: Kernel, *, rounds: int, takeover: float) -> None:
        """``takeover``: seconds that the traffic goes on with the new process, which takes over when its tables are filled."""
        self._programs = programs
        self._rounds = rounds
        self._takeover = takeover
        self._sent = 0

    def rows(self) -> Generator[Row, None, None]:
        lost = [self._sample() for _ in range(self._rounds)]
        note = f"of {self._sent:,} packets in {self._rounds} restarts"
        yield Row(
            "restart.lost", GROUP, f"{OURS}, packets lost by kill -9 and a new agent", "packets", lost, aim=Aim("<=", 0), note=note
        )

    def _sample(self) -> float:
        with ExitStack() as stack:
            rig = ours(stack, self._programs, ["xdp_sink"])
            product = rig.switch
            assert isinstance(product, Product)
            product.add_flows(FLOWS)
            before = self._programs.arrived()
            with _Traffic(rig.wire) as traffic:
                time.sleep(ALONE_SECONDS)
                product.kill()
                time.sleep(ALONE_SECONDS)
                with Product(rig.bed) as successor:
                    successor.add_flows(FLOWS)
                    time.sleep(self._takeover)
                    end = time.monotonic() + LATE_SECONDS
                    while not successor.megaflows():
                        if time.monotonic() > end:
                            raise BenchError("the new process has no megaflow for the traffic: it does not take over")
                    sent = traffic.stop()
                    time.sleep(ALONE_SECONDS)
            self._sent += sent
            return sent - (self._programs.arrived() - before)


class _Traffic:
    """One flow, sent by a thread."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._sent = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        frame = frames.frame(0)
        while not self._ended.is_set():
            self._wire.send(frame)
            self._sent += 1
            time.sleep(PACE_SECONDS)

    def __enter__(self) -> _Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """How many packets were sent."""
        self._ended.set()
        self._thread.join()
        return self._sent
