"""Waiting for a file descriptor again and again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from appliance.agent.green import Readable, sleep, spawn


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_each_wait_ends_when_there_is_something_to_read(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    heard: list[bytes] = []

    def listen() -> None:
        with closing(Readable(source)) as readable:
            for _ in range(3):
                readable.wait()
                heard.append(os.read(source, 10))

    listener = spawn(listen)
    for word in (b"one", b"two"):
        sleep(0.01)
        os.write(sink, word)
        sleep(0.01)
    assert heard == [b"one", b"two"]
    os.write(sink, b"three")
    listener.wait()
    assert heard == [b"one", b"two", b"three"]


def test_what_came_before_the_wait_ends_it_at_once(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    with closing(Readable(source)) as readable:
        os.write(sink, b"early")
        readable.wait()
        readable.wait()
        assert os.read(source, 10) == b"early"
        os.write(sink, b"meanwhile")
        sleep(0.01)  # the hub sees it, and nobody waits
        readable.wait()


def test_who_is_killed_while_waiting_is_not_called_any_more(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    with closing(Readable(source)) as readable:
        waiting = spawn(readable.wait)
        sleep(0)
        waiting.kill()
        os.write(sink, b"late")
        sleep(0.01)
        readable.wait()


def test_one_that_is_closed_is_registered_no_more(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    for _ in range(2):
        with closing(Readable(source)) as readable:
            os.write(sink, b"x")
            readable.wait()
            os.read(source, 1)
    Readable(source).close()
