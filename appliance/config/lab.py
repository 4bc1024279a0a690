"""The ``lab`` section: hosts in namespaces, and what is tried between them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, StrictInt, StrictStr, field_validator
from pydantic_core import PydanticCustomError

from appliance.config.addresses import tcp_port
from appliance.config.frozen import Frozen

_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")


def _with_prefix(version: int) -> BeforeValidator:
    example = "10.0.0.1/24" if version == 4 else "fd00::1/64"

    def check(value: Any) -> Any:
        if isinstance(value, str):
            try:
                address = ipaddress.ip_interface(value)
            except ValueError:
                address = None
            if address is None or address.version != version or "/" not in value:
                raise ValueError(f"{value!r} is not an IPv{version} address with its prefix length, for example {example}")
        return value

    return BeforeValidator(check)


class LabHost(Frozen):
    """One host: a network namespace joined to the switch by a veth pair. Addresses carry their prefix length."""

    name: StrictStr
    address4: Annotated[StrictStr, _with_prefix(4)]
    address6: Annotated[StrictStr, _with_prefix(6)]
    mac: StrictStr | None = None
    """None: 02:00:00:00:00:NN, NN the host's place from 1."""

    @field_validator("name")
    @classmethod
    def _short_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9]{1,4}", value):
            raise ValueError(f"{value!r} is not a host's name; use 1 to 4 letters and digits (it is part of an interface name)")
        return value

    @field_validator("mac")
    @classmethod
    def _unicast(cls, value: str | None) -> str | None:
        if value is not None and (not _MAC.fullmatch(value) or int(value[:2], 16) & 1):
            raise ValueError(f"{value!r} is not a host's MAC address, for example 02:00:00:00:00:01")
        return value


class Lab(Frozen):
    """The ``lab`` section: the hosts, and what is tried between the first and the second of them.

    ``transfer_mb``: 10^6 bytes sent by TCP. ``blocked_tcp_ports``: ports that must not be reached (for a firewall).
    """

    hosts: tuple[LabHost, ...]
    transfer_mb: StrictInt = 1000
    blocked_tcp_ports: tuple[StrictInt, ...] = ()

    @field_validator("blocked_tcp_ports")
    @classmethod
    def _tcp_ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for port in value:
            tcp_port(str(port), str(port))
        return value

    @field_validator("transfer_mb")
    @classmethod
    def _some(cls, value: int) -> int:
        if not 1 <= value <= 1_000_000:
            raise ValueError(f"{value} is not a number of megabytes; it must be 1 to 1000000")
        return value

    @field_validator("hosts")
    @classmethod
    def _distinct(cls, hosts: tuple[LabHost, ...]) -> tuple[LabHost, ...]:
        if not 2 <= len(hosts) <= 200:
            raise ValueError(f"a lab has 2 to 200 hosts, not {len(hosts)}")
        for noun in ("name", "address4", "address6", "mac"):
            given = [getattr(host, noun) for host in hosts if getattr(host, noun)]
            twice = sorted({item for item in given if given.count(item) > 1})
            if twice:
                raise PydanticCustomError(
                    "duplicate_host", "two hosts have the same {noun}: {twice}", {"noun": noun, "twice": ", ".join(twice)}
                )
        return hosts
