"""Waiting for what must come. How long it takes says something of the machine, and nothing of the switch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

SECONDS = 60.0
"""For anything that comes at once on a machine with nothing else to do: on one that has, it comes all the same."""


def until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """What ``condition`` gives when it gives something true; ``what`` is for the failure's text."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return result


def lost(output: str) -> list[int]:
    """Echo requests, by number, that were not answered while a later one was; ``output`` is that of a ping without ``-q``.

    A ping that ends does not wait for the last ones.
    """
    answered = {int(number) for number in re.findall(r" bytes from .* icmp_seq=(\d+)", output)}
    assert answered, output
    return sorted(set(range(1, max(answered))) - answered)
