"""One port as it is configured, and its queues.

Invariant: of one port only; what holds between ports is ``config.model``'s.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr, ValidationInfo, field_validator, model_validator

from appliance.config.frozen import Frozen
from appliance.config.tunnel import NO_REMOTE, UDP_PORTS, TunnelOptions
from appliance.model.ports import MAX_PORT_NUMBER
from appliance.model.queues import MAX_QUEUE_ID

MAX_INTERFACE_NAME = 15
MAX_RATE = 10**14
"""Bits a second."""

HookChoice = Literal["auto", "xdp", "xdp-generic", "tc"]
PortType = Literal["system", "vxlan", "geneve", "gre"]


def check_interface(value: Any) -> Any:
    if isinstance(value, str) and (
        not 0 < len(value.encode()) <= MAX_INTERFACE_NAME or re.search(r"[\s/:]", value) or value in (".", "..")
    ):
        raise ValueError(
            f"{value!r} is not an interface name; it has 1 to {MAX_INTERFACE_NAME} characters, no space, slash or colon"
        )
    return value


InterfaceName = Annotated[StrictStr, BeforeValidator(check_interface)]


_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]?)(?:bit/s|b/s|bit|bps)?")
_MULTIPLE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_rate(value: Any) -> Any:
    """Bits a second of a number or of text such as ``100M`` or ``2.5 Gb/s``. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        rate = value
    elif isinstance(value, str) and (matched := _RATE.fullmatch(value)) is not None:
        rate = round(float(matched[1]) * _MULTIPLE[matched[2]])
    elif value is None:
        return None
    else:
        rate = 0
    if not 8 <= rate <= MAX_RATE:
        raise ValueError(f"{value!r} is not a rate; write bits a second (at least 8), for example 100M or 2.5G")
    return rate


Rate = Annotated[StrictInt | None, BeforeValidator(parse_rate)]


class QueueSpec(Frozen):
    """One queue of a port. Rates are in bits a second, None for none: what it is promised, and what it never exceeds."""

    id: StrictInt
    min_rate: Rate = None
    max_rate: Rate = None

    @field_validator("id")
    @classmethod
    def _in_range(cls, value: int) -> int:
        if not 0 <= value <= MAX_QUEUE_ID:
            raise ValueError(f"{value} is not a queue's number; it must be 0 to {MAX_QUEUE_ID}")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_rate is not None and self.max_rate is not None and self.min_rate > self.max_rate:
            raise ValueError(f"queue {self.id}: min_rate {self.min_rate} is more than max_rate {self.max_rate}")
        return self


class PortSpec(Frozen):
    """One port, also written ``INTERFACE`` or ``INTERFACE=NUMBER``. In a ``Config``, ``number`` is never 0."""

    interface: InterfaceName
    number: StrictInt = 0
    """0 asks for the lowest number that no other port has."""
    type: PortType = "system"
    """A tunnel port's ``interface`` is a name alone; several share a device of the kernel, which the switch makes."""
    options: Annotated[TunnelOptions | None, Field(validate_default=True)] = None
    """Of each tunnel port, and of no other."""
    hook: HookChoice = "auto"
    queues: tuple[QueueSpec, ...] = ()
    direct_to_peer: StrictBool = True
    """Whether frames may go straight to the other end of a veth, past its queue, where ``tcpdump`` would see them leave."""

    @property
    def tunnel(self) -> TunnelOptions | None:
        """None for a port that is no tunnel's."""
        return self.options

    @field_validator("options", mode="before")
    @classmethod
    def _where_it_leads(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("type")
        if kind == "system" and value is not None:
            raise ValueError("options are for tunnels; add a type: vxlan, geneve or gre")
        if kind in UDP_PORTS and value is None:
            raise ValueError(NO_REMOTE)
        return value

    @field_validator("options")
    @classmethod
    def _for_the_type(cls, value: TunnelOptions | None, info: ValidationInfo) -> TunnelOptions | None:
        kind = info.data.get("type")
        if kind in UDP_PORTS and value is not None:
            value.check(kind)
        return value

    @field_validator("hook")
    @classmethod
    def _met_at_tc(cls, value: HookChoice, info: ValidationInfo) -> HookChoice:
        if value not in ("auto", "tc") and info.data.get("type") in UDP_PORTS:
            raise ValueError("XDP knows no tunnels: a tunnel port is met at tc; take this out")
        return value

    @field_validator("queues")
    @classmethod
    def _distinct(cls, value: tuple[QueueSpec, ...], info: ValidationInfo) -> tuple[QueueSpec, ...]:
        if value and info.data.get("type") in UDP_PORTS:
            raise ValueError("a tunnel port has no queues; packets keep theirs on the interface that the tunnel leaves by")
        given = [queue.id for queue in value]
        twice = sorted({item for item in given if given.count(item) > 1})
        if twice:
            raise ValueError(f"two queues have the same id: {', '.join(map(str, twice))}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        interface, equals, number = value.partition("=")
        if not equals:
            return {"interface": interface}
        if not number.isascii() or not number.isdigit():
            raise ValueError(
                f"{value!r}: {number!r} is not a port number; write INTERFACE=NUMBER, for example {interface or 'eth1'}=1"
            )
        return {"interface": interface, "number": int(number)}

    @field_validator("number")
    @classmethod
    def _in_range(cls, value: int) -> int:
        # 0 itself cannot be written: the default is not validated.
        if not 1 <= value <= MAX_PORT_NUMBER:
            raise ValueError(f"{value} is not a port number; it must be 1 to {MAX_PORT_NUMBER}")
        return value
