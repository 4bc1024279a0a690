"""Waiting for a file descriptor again and again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from agent_support import until

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


def test_what_is_done_at_once_says_whether_the_wait_is_over(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    heard: list[bytes] = []
    over: list[int] = []

    def read() -> bool:
        heard.append(os.read(source, 10))
        return heard[-1] == b"enough"

    def listen() -> None:
        with closing(Readable(source, read)) as readable:
            readable.wait()
            over.append(len(heard))

    listener = spawn(listen)
    for word in (b"some", b"more", b"enough"):
        sleep(0.01)
        assert not over
        os.write(sink, word)
        sleep(0.01)
    listener.wait()
    assert (heard, over) == ([b"some", b"more", b"enough"], [3])


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


LONG = 20.0
"""Nobody waits so long where something else ends it."""


@pytest.fixture
def registered(pipe: tuple[int, int]) -> Iterator[Readable]:
    """The pipe's source, after a first wait."""
    source, sink = pipe
    with closing(Readable(source)) as readable:
        os.write(sink, b"first")
        readable.wait()
        assert os.read(source, 10) == b"first"
        yield readable


def test_soon_is_when_it_comes_in_time(pipe: tuple[int, int], registered: Readable) -> None:
    source, sink = pipe
    assert not registered.soon(0.001)
    writer = threading.Timer(0.02, os.write, (sink, b"later"))
    writer.start()
    until(lambda: registered.soon(LONG))  # not at once, where earlier tests left something to be done
    writer.join()
    assert os.read(source, 10) == b"later"
    assert not registered.soon(0.001)


def test_nothing_comes_soon_before_the_first_wait(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    os.write(sink, b"early")
    with closing(Readable(source)) as readable:
        assert not readable.soon(LONG)
        readable.wait()
        until(lambda: readable.soon(LONG))


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_what_is_due_is_not_kept_waiting(registered: Readable, seconds: float) -> None:
    def work() -> None:
        sleep(seconds)
        done.append(True)

    done: list[bool] = []
    worker = spawn(work)
    if seconds:
        sleep(0)  # it is asleep now
    began = time.monotonic()
    assert not registered.soon(LONG)
    assert time.monotonic() - began < LONG
    worker.wait()
    assert done


def test_what_came_for_others_meanwhile_is_not_kept_waiting_either(pipe: tuple[int, int], registered: Readable) -> None:
    _, sink = pipe
    other, others_sink = os.pipe()
    with closing(Readable(other)) as readable:
        reader = spawn(readable.wait)
        sleep(0)  # it waits now
        os.write(sink, b"for this one")
        os.write(others_sink, b"for others")
        assert not registered.soon(LONG)
        reader.wait()
    os.close(other)
    os.close(others_sink)


def test_what_others_may_read_is_not_kept_waiting(registered: Readable) -> None:
    other, sink = os.pipe()
    with closing(Readable(other)) as readable:
        reader = spawn(readable.wait)
        sleep(0)  # it waits now
        writer = threading.Timer(0.02, os.write, (sink, b"for others"))
        writer.start()
        began = time.monotonic()
        assert not registered.soon(LONG)
        assert time.monotonic() - began < LONG
        reader.wait()
        writer.join()
    os.close(other)
    os.close(sink)
