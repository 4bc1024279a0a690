"""Messages that either side may send (specification 1.3.5, section 7.5), and Error (section 7.4.4)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.openflow.constants import OFP_VERSION
from appliance.openflow.message import Message


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """``versions`` are those of the version bitmap, ascending; empty where the peer sent none. ``version`` is the header's."""

    versions: tuple[int, ...] = ()
    version: int = OFP_VERSION


@dataclass(frozen=True, slots=True)
class Error(Message):
    """``type`` and ``code`` as in ``errors``; ``data`` starts the failed request (64 bytes or more); for HELLO_FAILED it is text.

    For type EXPERIMENTER, ``code`` is exp_type and ``data`` starts with the experimenter's id.
    """

    type: int
    code: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoRequest(Message):
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoReply(Message):
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Experimenter(Message):
    experimenter: int
    exp_type: int
    data: bytes = b""
