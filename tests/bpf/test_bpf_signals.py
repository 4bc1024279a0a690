"""Signals that come while the kernel verifies a program."""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Iterator

import pytest
from support.waiting import until

from appliance.datapath import programs

pytestmark = pytest.mark.root

TURNS = 100_000


def slowly_verified() -> bytes:
    """``r1 = 0; do r1 += 1 while r1 != TURNS; return 0``, through which the verifier goes turn by turn."""
    code = ((0xB7, 1, 0, 0), (0x07, 1, 0, 1), (0x55, 1, -2, TURNS), (0xB7, 0, 0, 0), (0x95, 0, 0, 0))
    return b"".join(struct.pack("<BBhi", *instruction) for instruction in code)


@pytest.fixture
def signals() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_does_not_keep_a_program_from_being_loaded(signals: None, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up: list[int] = []
    bpf = programs.bpf

    def watched(command: int, attribute: bytes) -> tuple[int, bytes]:
        try:
            return bpf(command, attribute)
        except BlockingIOError as error:
            given_up.append(error.errno)
            raise

    def pester() -> None:
        while not given_up and not over.wait(0.002):
            signal.pthread_kill(main, signal.SIGUSR1)

    def loaded_in_spite_of_it() -> bool:
        os.close(programs.load(programs.SCHED_CLS, "slow", slowly_verified()))
        return bool(given_up)

    monkeypatch.setattr(programs, "bpf", watched)
    main, over = threading.get_ident(), threading.Event()
    pestering = threading.Thread(target=pester)
    pestering.start()
    try:
        until(loaded_in_spite_of_it, "a verification that was given up")
    finally:
        over.set()
        pestering.join()
