"""Choice of hook, link modes and counter arithmetic: what needs no kernel."""

from __future__ import annotations

import pytest

from appliance.model.ports import UNKNOWN_COUNT, Hook, PortCounters
from appliance.ports import Interface, XdpFeature, choose_hook, since, xdp_transmit
from appliance.ports.ethtool import PortFeature, features


def interface(kind: str = "") -> Interface:
    return Interface("eth1", 5, bytes(6), kind, 1500, True, True, False)


NATIVE = XdpFeature.BASIC | XdpFeature.REDIRECT


@pytest.mark.parametrize(
    ("kind", "driver", "offered", "hook", "reason"),
    [
        ("", "ixgbe", NATIVE, Hook.XDP, "ixgbe has native XDP"),
        ("", "r8169", XdpFeature.NONE, Hook.TC, "r8169 has no native XDP"),
        ("", "", XdpFeature.NONE, Hook.TC, "its driver has no native XDP"),
        ("", "ixgbe", None, Hook.XDP, "ixgbe has native XDP"),
        ("", "r8169", None, Hook.TC, "r8169 has no native XDP"),
        ("veth", "veth", NATIVE, Hook.TC, "veth is virtual: XDP would cost segmentation and checksum offload"),
        ("tun", "tun", NATIVE, Hook.TC, "tun is virtual: XDP would cost segmentation and checksum offload"),
        ("loopback", "", XdpFeature.NONE, Hook.TC, "loopback is virtual: XDP would cost segmentation and checksum offload"),
    ],
)
def test_auto(kind: str, driver: str, offered: XdpFeature | None, hook: Hook, reason: str) -> None:
    assert choose_hook(interface(kind), "auto", driver, offered) == (hook, reason)


@pytest.mark.parametrize("kind", ["", "veth"])
@pytest.mark.parametrize("requested", ["xdp", "tc"])
def test_what_the_user_asks_for_is_taken(kind: str, requested: str) -> None:
    assert choose_hook(interface(kind), requested, "r8169", XdpFeature.NONE) == (Hook(requested), "as configured")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("driver", "offered", "transmits"),
    [
        ("ixgbe", NATIVE | XdpFeature.NDO_XMIT, True),
        ("ixgbe", NATIVE, False),
        ("veth", XdpFeature.NDO_XMIT, True),
        ("ixgbe", None, True),
        ("veth", None, False),
        ("virtio_net", None, False),
    ],
)
def test_frames_redirected_at_xdp(driver: str, offered: XdpFeature | None, transmits: bool) -> None:
    assert xdp_transmit(driver, offered)[0] is transmits


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ([], PortFeature.NONE),
        (["10baseT/Half", "10baseT/Full"], PortFeature.MB10_HD | PortFeature.MB10_FD),
        (["100baseT/Half", "1000baseT/Full", "1000baseT/Half"], PortFeature.MB100_HD | PortFeature.GB1_FD | PortFeature.GB1_HD),
        (["10000baseT/Full", "FIBRE"], PortFeature.GB10_FD | PortFeature.FIBER),
        (["40000baseKR4/Full", "100000baseSR4/Full"], PortFeature.GB40_FD | PortFeature.GB100_FD),
        (["25000baseCR/Full", "2500baseT/Full"], PortFeature.OTHER),
        (
            ["Autoneg", "TP", "Pause", "Asym_Pause"],
            PortFeature.AUTONEG | PortFeature.COPPER | PortFeature.PAUSE | PortFeature.PAUSE_ASYM,
        ),
        (["MII", "Backplane", "nonsense", "base", "xbaseT/Full"], PortFeature.NONE),
    ],
)
def test_link_modes(modes: list[str], expected: PortFeature) -> None:
    assert features(modes) == expected


def test_counters_since_a_baseline() -> None:
    baseline = PortCounters(rx_packets=5, tx_bytes=(1 << 64) - 2, rx_crc_err=4)
    now = PortCounters(rx_packets=12, tx_bytes=3, rx_crc_err=UNKNOWN_COUNT, rx_over_err=7)
    difference = since(now, baseline)
    assert difference.rx_packets == 7
    assert difference.tx_bytes == 5, "a 64-bit counter may wrap"
    assert difference.rx_crc_err == UNKNOWN_COUNT
    assert difference.rx_over_err == UNKNOWN_COUNT
