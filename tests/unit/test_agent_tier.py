"""In which tier a megaflow is, and why: what ``ofswitch megaflows`` says. That it is so is tests/bpf's to show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.agent.tier import Tier, tier_of
from appliance.datapath.driver import DatapathPort
from appliance.model.actions import Meter, PushMpls, PushPbb, SetField, SetQueue
from appliance.model.fields import BY_NAME, IN_PORT, PLUGIN_BITS
from appliance.model.megaflow import (
    Again,
    CallPlugin,
    Clone,
    Controller,
    DatapathAction,
    DecTtl,
    Failover,
    Flood,
    Forward,
    Megaflow,
    PacketInReason,
    PopTag,
    Way,
)
from appliance.model.ports import Hook

XDP = DatapathPort(1, "eth1", 1, Hook.XDP, xdp_transmit=True)
UP = Controller(PacketInReason.ACTION, 0, 0, 0xFFFF)
OUT = Forward(2)


def tier(*actions: DatapathAction, port: DatapathPort = XDP, out: DatapathPort = XDP, mask: int = 0) -> Tier:
    """Of a megaflow for packets of port 1; port 2 is ``out``."""
    ports = {1: (port, "as configured"), 2: (out, "as configured")}
    return tier_of(Megaflow(1, IN_PORT.put(0, 1), IN_PORT.mask | mask, actions), ports.get, str)


def test_at_xdp() -> None:
    assert tier(OUT) == tier() == tier(SetField(BY_NAME["eth_dst"], 5), OUT) == Tier("xdp", "")


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ((Flood(),), "a flood"),
        ((UP, OUT), "a copy for the controllers"),
        ((Forward(1), OUT), "several outputs"),
        ((Failover(1, (Way(0, (OUT,), watch_port=2),)),), "a group that chooses"),
        ((SetQueue(1), OUT), "a queue"),
        ((Meter(1), OUT), "a meter"),
        ((CallPlugin(1, bytes(12)), OUT), "a plug-in"),
        ((OUT, DecTtl()), "a change behind its output"),
        ((PopTag(), Again(0x10000)), "it is parsed again"),
        ((Clone((SetField(BY_NAME["ipv4_dst"], 5), OUT)), OUT), "a copy with changes of its own"),
    ],
)
def test_actions_that_are_done_at_tc(actions: tuple[DatapathAction, ...], why: str) -> None:
    assert tier(*actions)[:2] == ("tc", why)


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ((PushPbb(0x88E7), OUT), "PBB"),
        ((SetField(BY_NAME["pbb_isid"], 1), OUT), "PBB"),
        ((UP,), "it goes to the controllers alone"),
        ((SetField(BY_NAME["eth_type"], 0x800), DecTtl(), OUT), "it needs headers that an action has brought to light"),
        ((SetField(BY_NAME["ip_ttl"], 9), DecTtl(), OUT), "it decrements a TTL that an action has set, copied or hidden"),
        ((Meter(1), PushPbb(0x88E7), OUT), "PBB"),
        (tuple(Meter(number) for number in range(5)), "more than 4 meters"),
    ],
)
def test_actions_for_the_slow_path(actions: tuple[DatapathAction, ...], why: str) -> None:
    assert tier(*actions) == Tier("slow_path", why)


def test_what_ports_and_matches_keep_at_tc() -> None:
    assert tier(OUT, port=replace(XDP, hook=Hook.TC)) == Tier("tc", "port 1 is at TC (as configured)")
    assert tier(Flood(), port=replace(XDP, hook=Hook.TC)) == Tier("tc", "port 1 is at TC (as configured)")
    assert tier(OUT, port=replace(XDP, finished=False)) == Tier("tc", "frames come in on port 1 with checksums or tags still open")
    assert tier(OUT, out=replace(XDP, xdp_transmit=False)) == Tier("tc", "port 2 takes nothing from XDP")
    assert tier(Forward(3)) == Tier("tc", "port 3 takes nothing from XDP")
    assert tier(OUT, mask=PLUGIN_BITS.mask) == Tier("tc", "it depends on a plug-in's match")
    assert tier_of(Megaflow(1, 0, 0, ()), lambda number: None, str) == Tier("tc", "port 0 is gone")


def test_what_is_done_once_a_packet_has_been_parsed_again() -> None:
    behind = Megaflow(1, IN_PORT.put(0, 0x10000), IN_PORT.mask, (OUT,))
    assert tier_of(behind, {}.get, str) == Tier("tc", "it is the rest of what is done to packets that are parsed again")


def test_packets_that_are_left_to_a_slower_tier() -> None:
    assert tier(DecTtl(), OUT).exceptions == ("slow path: a TTL that is used up",)
    assert tier(PopTag(), DecTtl(), OUT).exceptions[1:] == ("slow path: a third tag",)
    assert tier(PushMpls(0x8847), OUT).exceptions == ("slow path: frames still to be cut, with two tags",)
    assert tier(OUT, port=replace(XDP, mtu=9000)) == Tier("xdp", "", ("tc: long frames, which come in pieces",))
