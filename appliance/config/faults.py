"""What is wrong with a configuration, where, and what would be right.

Invariant: a fault names the place that the user must edit: ``file:line:column``, or the flag.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """``file`` is a file's name or a flag (``--port``), ``line`` and ``column`` count from 1 and are 0 for a flag."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used; ``faults`` are all that is wrong with it, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        super().__init__("\n".join(str(fault) for fault in self.faults))


def one_of(known: Collection[str]) -> str:
    return ", ".join(known)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of ``known``, else a list of them all; empty if there are none."""
    if not known:
        return ""
    lower = {item.lower(): item for item in known}
    nearest = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[nearest[0]]!r}?" if nearest else f"; it may be: {one_of(known)}"
