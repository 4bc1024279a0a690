"""The two ends of a request of one byte and its response, each a process on the CPU that it is told:

ask.py serve CPU ADDRESS                  prints its port, and answers one connection
ask.py ask CPU ADDRESS PORT REQUESTS      prints the median of the µs that each took
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time


def serve(cpu: str, address: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while request := connection.recv(1):
                connection.send(request)


def ask(cpu: str, address: str, port: str, requests: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    taken = []
    with socket.create_connection((address, int(port)), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(int(requests)):
            start = time.perf_counter_ns()
            connection.send(b"?")
            if not connection.recv(1):
                raise ConnectionError("closed")
            taken.append((time.perf_counter_ns() - start) / 1000)
    print(statistics.median(taken))


if __name__ == "__main__":
    (serve if sys.argv[1] == "serve" else ask)(*sys.argv[2:])
