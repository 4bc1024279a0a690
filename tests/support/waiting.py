"""Waiting for what must come. How long it takes says something of the machine, and nothing of the switch."""

from __future__ import annotations

import re
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

SECONDS = 60.0
"""For anything that comes at once on a machine with nothing else to do: on one that has, it comes all the same."""


def until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """What ``condition`` gives when it gives something true; ``what`` is for the failure's text."""
    result = in_time(condition, seconds)
    assert result, f"not within {seconds} s: {what}"
    return result


def in_time(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What ``condition`` gives when it gives something true, or what it gave last."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return result


def readable(source: FileDescriptorLike, seconds: float) -> bool:
    """Whether there is something to read, now or within so many seconds; whatever the number of its descriptor."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def lost(output: str) -> list[int]:
    """Echo requests, by number, that were not answered while a later one was; ``output`` is that of a ping without ``-q``.

    A ping that ends does not wait for the last ones.
    """
    answered = {int(number) for number in re.findall(r" bytes from .* icmp_seq=(\d+)", output)}
    assert answered, output
    return sorted(set(range(1, max(answered))) - answered)
