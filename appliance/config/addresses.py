"""Where controllers are, where they may connect to us, and what TLS needs: ``tcp:HOST:PORT``, ``pssl:PORT:ADDRESS``.

Invariant: an address that exists has a port number, and a host name or an IP address without brackets.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

from pydantic import StrictInt, StrictStr, field_validator, model_validator

from appliance.config.frozen import Frozen

DEFAULT_OPENFLOW_PORT = 6653
MAX_AUXILIARY = 255

_HOST_NAME = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")

Scheme = Literal["tcp", "ssl"]


def tcp_port(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 0xFFFF:
        raise ValueError(f"{whole!r}: {text!r} is not a TCP port; it must be a number from 1 to 65535")
    return int(text)


def _address(text: str, whole: str, *, names: bool) -> str:
    """An IP address (IPv6 without its brackets), or with ``names`` also a host name."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        # Four numbers are a mistyped address, not a name.
        if names and bare == text and _HOST_NAME.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
            return text
    allowed = "a host name, an IPv4 address or an IPv6 address in []" if names else "an IPv4 address or an IPv6 address in []"
    raise ValueError(f"{whole!r}: {text!r} is not {allowed}") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _controller(text: str) -> dict[str, Any]:
    scheme, colon, rest = text.partition(":")
    if scheme not in ("tcp", "ssl") or not colon:
        raise ValueError(f"{text!r} is not a controller; write tcp:HOST or tcp:HOST:PORT (ssl: for TLS)")
    matched = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?", rest)
    if matched is None:
        raise ValueError(f"{text!r} is not a controller; write {scheme}:HOST:PORT, an IPv6 address in []: {scheme}:[::1]:6653")
    host, port = matched.groups()
    number = DEFAULT_OPENFLOW_PORT if port is None else tcp_port(port, text)
    return {"host": _address(host, text, names=True), "port": number, "scheme": scheme}


class ControllerAddress(Frozen):
    """A controller to connect to, written ``tcp:HOST[:PORT]``, or ``ssl:HOST[:PORT]`` for TLS; IPv6 in brackets.

    With auxiliary connections it is written ``{target: tcp:HOST[:PORT], auxiliary: NUMBER}``.
    """

    host: StrictStr
    port: StrictInt = DEFAULT_OPENFLOW_PORT
    scheme: Scheme = "tcp"
    auxiliary: StrictInt = 0
    """Connections besides the main one."""

    @field_validator("auxiliary")
    @classmethod
    def _some(cls, value: int) -> int:
        if not 0 <= value <= MAX_AUXILIARY:
            raise ValueError(f"{value} is not a number of auxiliary connections; it must be 0 to {MAX_AUXILIARY}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("target"), str):
            return {**{key: item for key, item in value.items() if key != "target"}, **_controller(value["target"])}
        return _controller(value) if isinstance(value, str) else value

    @property
    def tls(self) -> bool:
        return self.scheme == "ssl"

    def __str__(self) -> str:
        return f"{self.scheme}:{_bracketed(self.host)}:{self.port}"


class ListenAddress(Frozen):
    """Where controllers may connect to us, written ``ptcp:[PORT][:ADDRESS]``, or ``pssl:`` for TLS.

    Without an address, 127.0.0.1: this machine only.
    """

    port: StrictInt = DEFAULT_OPENFLOW_PORT
    address: StrictStr = ""
    scheme: Scheme = "tcp"

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        scheme, colon, rest = value.partition(":")
        if scheme not in ("ptcp", "pssl") or not colon:
            raise ValueError(f"{value!r} is not a place to listen; write ptcp:PORT or ptcp:PORT:ADDRESS (pssl: for TLS)")
        port, colon, address = rest.partition(":")
        number = tcp_port(port, value) if port else DEFAULT_OPENFLOW_PORT
        return {"port": number, "address": _address(address, value, names=False) if colon else "", "scheme": scheme[1:]}

    @property
    def tls(self) -> bool:
        return self.scheme == "ssl"

    def __str__(self) -> str:
        return f"p{self.scheme}:{self.port}" + (f":{_bracketed(self.address)}" if self.address else "")


class TlsFiles(Frozen):
    """PEM files: the switch's own key and certificate (with those between it and the authority, if any), and the certificates of
    the authorities that controllers' certificates must come from. Each side must show a certificate.
    """

    private_key: StrictStr
    certificate: StrictStr
    ca_certificate: StrictStr
