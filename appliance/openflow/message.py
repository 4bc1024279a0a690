"""What all messages share."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """An OpenFlow message. ``xid`` is the transaction: a reply or an error has that of its request (section 7.1)."""

    xid: int = field(default=0, kw_only=True)
