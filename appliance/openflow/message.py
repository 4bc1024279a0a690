"""What all messages share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class Message(Protocol):
    """An OpenFlow message. ``xid`` is the transaction: a reply or an error has that of its request (section 7.1).

    Most are frozen dataclasses; those that come by the hundred thousand are named tuples, which are made in a quarter of the time.
    """

    @property
    def xid(self) -> int: ...


@dataclass(frozen=True, slots=True)
class MessageBase:
    """Of most messages."""

    xid: int = field(default=0, kw_only=True)
