"""The options of tunnel ports, by Open vSwitch's names (ovs-vswitchd.conf.db(5), "Tunnel Options").

Invariant: options that exist are right for every kind of tunnel; ``check`` says whether they are for one.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, StrictBool, model_validator

from appliance.config.frozen import Frozen
from appliance.model.tunnel import DEFAULT_TTL, TunnelPort

TunnelKind = Literal["vxlan", "geneve", "gre"]
UDP_PORTS: dict[TunnelKind, int] = {"vxlan": 4789, "geneve": 6081, "gre": 0}
"""Where none is given; 0 for a tunnel that has none."""
KEY_BITS: dict[TunnelKind, int] = {"vxlan": 24, "geneve": 24, "gre": 32}
FLOW = "flow"
INHERIT = "inherit"
NO_REMOTE = f"a tunnel port needs the option remote_ip: an IP address, or {FLOW}: flow entries say it"


def _address(value: Any) -> Any:
    if value == FLOW:
        return value
    try:
        address = ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    if address is None or address.is_unspecified or address.is_multicast:
        raise ValueError(f"{value!r} is not the address of a tunnel's end; write an IP address, or {FLOW}: flow entries say it")
    return str(address)


def _number(value: Any, first: int, last: int, what: str, word: str, meaning: str) -> Any:
    if value == word or (isinstance(value, int) and not isinstance(value, bool) and first <= value <= last):
        return value
    raise ValueError(f"{value!r} is not a {what}; write a number from {first} to {last}, or {word}: {meaning}")


def _key(value: Any) -> Any:
    return None if value is None else _number(value, 0, (1 << 32) - 1, "key (VNI)", FLOW, "flow entries say it, by tunnel_id")


def _udp_port(value: Any) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 0xFFFF):
        return value
    raise ValueError(f"{value!r} is not a UDP port; it must be 1 to 65535")


Address = Annotated[str, BeforeValidator(_address)]
Key = Annotated[int | str | None, BeforeValidator(_key)]
UdpPort = Annotated[int | None, BeforeValidator(_udp_port)]
Ttl = Annotated[
    int | str, BeforeValidator(lambda value: _number(value, 1, 255, "TTL", INHERIT, "the packet's own, where it has one"))
]
Tos = Annotated[
    int | str, BeforeValidator(lambda value: _number(value, 0, 255, "type of service", INHERIT, "the packet's own DSCP"))
]


class TunnelOptions(Frozen):
    """The end of one tunnel, or with ``flow`` of any: which one, flow entries say by set-field, and ask by match."""

    remote_ip: Address = ""
    """Must be given."""
    local_ip: Address = FLOW
    """``flow``, also for what flow entries leave open: the kernel's routes say it."""
    key: Key = None
    """VNI or GRE key. None: 0, or for GRE none at all."""
    dst_port: UdpPort = None
    """None: the kind's own."""
    df_default: StrictBool = True
    """Outer IPv4 packets must not be fragmented on their way."""
    csum: StrictBool | None = None
    """A checksum over the whole of each outer UDP packet. None: only where it must be, over IPv6."""
    ttl: Ttl = DEFAULT_TTL
    tos: Tos = 0

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not self.remote_ip:
            raise ValueError(NO_REMOTE)
        versions = {ipaddress.ip_address(address).version for address in (self.remote_ip, self.local_ip) if address != FLOW}
        if len(versions) > 1:
            raise ValueError(f"remote_ip {self.remote_ip} and local_ip {self.local_ip} are not of one version of IP")
        if self.remote_ip == FLOW and 6 in versions:
            raise ValueError(f"local_ip {self.local_ip} needs a remote_ip of IPv6: what flow entries say is IPv4")
        return self

    def check(self, kind: TunnelKind) -> None:
        """Raises ValueError for what this kind of tunnel cannot have."""
        bits = KEY_BITS[kind]
        if isinstance(self.key, int) and self.key >> bits:
            raise ValueError(f"key {self.key} is too large: {kind} has {bits} bits, it must be at most {(1 << bits) - 1}")
        if self.dst_port is not None and not UDP_PORTS[kind]:
            raise ValueError(f"dst_port {self.dst_port}: {kind} has no UDP port; take this out")
        if kind == "gre" and self.csum:
            raise ValueError("csum: Linux takes in no GRE packet with a checksum where a device is for all tunnels; take this out")

    def udp_port(self, kind: TunnelKind) -> int:
        """0 for a kind that has none."""
        return UDP_PORTS[kind] if self.dst_port is None else self.dst_port

    def port(self, kind: TunnelKind) -> TunnelPort:
        remote = None if self.remote_ip == FLOW else ipaddress.ip_address(self.remote_ip)
        local = None if self.local_ip == FLOW else ipaddress.ip_address(self.local_ip)
        ipv6 = (remote or local or ipaddress.IPv4Address(0)).version == 6
        return TunnelPort(
            remote=remote,
            local=local,
            key=None if self.key == FLOW else int(self.key or 0),
            keyless=kind == "gre" and self.key is None,
            checksum=ipv6 and kind != "gre" if self.csum is None else self.csum,
            dont_fragment=self.df_default,
            tos=None if self.tos == INHERIT else int(self.tos),
            ttl=None if self.ttl == INHERIT else int(self.ttl),
        )
