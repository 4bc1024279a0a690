"""The frames of Ryu's own switch tests (os-ken's of13 cases of actions and matches) through parser and executor.

What those tests ask of a switch beside the frames is for tests/conformance to show. Two things are repaired here: os-ken 4 computes
SCTP's checksum over the text of the bytes, and expects frames padded to 60 bytes, which is the port's business.
"""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from os_ken.lib.packet import arp, ethernet, icmp, icmpv6, ipv4, ipv6, mpls, pbb, sctp, tcp, udp, vlan
from vectors.frames import plain_crc32c

from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, PopMpls, PopPbb, PushMpls, PushPbb, SetField
from appliance.model.fields import BY_NAME, IP_TTL, METADATA, MPLS_TTL, TUNNEL_ID, VLAN_PRESENT, VLAN_TCI, Field
from appliance.model.megaflow import DatapathAction, DecTtl, Forward, PopTag, PushTag
from appliance.packet.execute import execute
from appliance.packet.parse import parse

OF13 = Path(str(files("os_ken"))) / "tests" / "switch" / "of13"
PATHS = sorted(path for part in ("action", "match") for path in (OF13 / part).rglob("*.json"))
IN_PORT = 1
ETHERNET_MIN = 60
"""Bytes of the shortest frame, without its check sequence."""
OUT = Forward(1)
Json = dict[str, Any]

_NAMES = {
    # of what the tests' expressions hold; ICMP and ICMPv6 both have an "echo"
    name: member
    for module in (arp, ethernet, icmpv6, icmp, ipv4, ipv6, mpls, pbb, sctp, tcp, udp, vlan)
    for name, member in inspect.getmembers(module, inspect.isclass)
} | {"icmpv6echo": icmpv6.echo}


def _frame(layers: list[str]) -> bytes:
    """The tests hold packets as expressions of os-ken's packet library; Ryu's tester evaluates them so."""
    packet = eval("/".join(layers), dict(_NAMES))
    packet.serialize()
    return bytes(packet.data)


def _number(field: Field, value: int | str) -> int:
    if isinstance(value, int):
        return value
    return int(value.replace(":", ""), 16) if field.display == "mac" else int(ip_address(value))


class _Switch:
    """One packet on its way through the tables: at most one flow entry in each."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.metadata = self.tunnel_id = 0

    def takes(self, flow: Json) -> bool:
        """Whether the flow entry matches the packet; if so, its instructions have been executed."""
        key = METADATA.put(parse(self.frame, IN_PORT, self.tunnel_id).key, self.metadata)
        for wrapped in flow.get("match", {"OFPMatch": {}})["OFPMatch"].get("oxm_fields", []):
            tlv = wrapped["OXMTlv"]
            field = BY_NAME[tlv["field"]]
            mask = _number(field, tlv["mask"]) if tlv.get("mask") is not None else field.max
            if field.get(key) & mask != _number(field, tlv["value"]) & mask:
                return False
        for wrapped in flow["instructions"]:
            if write := wrapped.get("OFPInstructionWriteMetadata"):
                mask = write["metadata_mask"]
                self.metadata = self.metadata & ~mask | write["metadata"] & mask
            for action in wrapped.get("OFPInstructionActions", {}).get("actions", []):
                ((name, arguments),) = action.items()
                self._apply(name, arguments)
        return True

    def _apply(self, name: str, arguments: Json) -> None:
        match name.removeprefix("OFPAction"):
            case "Output":
                pass
            case "SetField":
                tlv = arguments["field"]["OXMTlv"]
                field = BY_NAME[tlv["field"]]
                value = _number(field, tlv["value"])
                if field is TUNNEL_ID:
                    self.tunnel_id = value
                self._do(SetField(field, value))
            case "PushVlan":
                tci = VLAN_TCI.get(parse(self.frame, IN_PORT).key) & ~VLAN_PRESENT
                self._do(PushTag(arguments["ethertype"], tci))
            case "PopVlan":
                self._do(PopTag())
            case "SetNwTtl":
                self._do(SetField(IP_TTL, arguments["nw_ttl"]))
            case "DecNwTtl":
                self._do(DecTtl())
            case "SetMplsTtl":
                self._do(SetField(MPLS_TTL, arguments["mpls_ttl"]))
            case "PushMpls" | "PopMpls" | "PushPbb" as kind:
                self._do({"PushMpls": PushMpls, "PopMpls": PopMpls, "PushPbb": PushPbb}[kind](arguments["ethertype"]))
            case "PopPbb" | "CopyTtlIn" | "CopyTtlOut" | "DecMplsTtl" as kind:
                self._do({"PopPbb": PopPbb, "CopyTtlIn": CopyTtlIn, "CopyTtlOut": CopyTtlOut, "DecMplsTtl": DecMplsTtl}[kind]())
            case _:
                raise ValueError(name)

    def _do(self, action: DatapathAction) -> None:
        (emission,) = execute(self.frame, (action, OUT), IN_PORT)
        assert emission.action is OUT
        self.frame = emission.frame


@pytest.fixture(autouse=True)
def _sctp_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sctp.sctp, "_checksum", lambda _, data: int.from_bytes(plain_crc32c(data).to_bytes(4, "little"), "big"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(OF13).with_suffix("")))
def test_case(path: Path) -> None:
    for case in json.loads(path.read_text()):
        if isinstance(case, str):  # the file's title
            continue
        flows = [wrapped["OFPFlowMod"] for wrapped in case["prerequisite"]]
        for packet in case["tests"]:
            switch = _Switch(_frame(packet["ingress"]))
            matched = all(switch.takes(flow) for flow in flows)
            expected = packet.get("egress") or packet.get("PACKET_IN")
            assert matched is (expected is not None), case["description"]
            if expected:
                assert switch.frame.ljust(ETHERNET_MIN, b"\0").hex() == _frame(expected).hex(), case["description"]


def test_there_are_all_of_them() -> None:
    """os-ken ships 991 cases of 1.3; those of groups and meters are not here."""
    cases = [case for path in PATHS for case in json.loads(path.read_text()) if not isinstance(case, str)]
    assert len(cases) > 900
