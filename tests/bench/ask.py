"""The two ends of a request of one byte and its response, and of datagrams, each a process on the CPU that it is told:

ask.py serve CPU ADDRESS                  prints its port, and answers one connection
ask.py ask CPU ADDRESS PORT REQUESTS      prints the median of the µs that each took
ask.py hold CPU ADDRESS                   prints its port, to which datagrams may come, and reads none, until its input ends
ask.py send CPU ADDRESS PORT DATAGRAMS    prints the ns that each took of the sender's CPU, to the end of their way
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time

DATAGRAM_BYTES = 18
"""In a frame of 60 bytes."""
WARM_UP = 1_000


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


def hold(cpu: str, address: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind((address, 0))
        print(held.getsockname()[1], flush=True)
        sys.stdin.read()


def send(cpu: str, address: str, port: str, datagrams: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    data = bytes(DATAGRAM_BYTES)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, int(port)))
        for _ in range(WARM_UP):
            sender.send(data)
        start = time.thread_time_ns()
        for _ in range(int(datagrams)):
            sender.send(data)
        print((time.thread_time_ns() - start) / int(datagrams))


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "hold": hold, "send": send}[sys.argv[1]](*sys.argv[2:])
