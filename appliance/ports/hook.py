"""Which hook a port gets, and why; the reason is shown to the user.

XDP runs before the kernel makes an skb: on a hardware NIC that is the fast way. On a virtual interface it is the slow one: frames
there come from a local stack as one big segmentation-offload frame with its checksum left open, which XDP cannot carry.
"""

from __future__ import annotations

from typing import Literal

from appliance.model.ports import Hook
from appliance.ports.interface import Interface
from appliance.ports.xdp_features import XdpFeature

HookChoice = Literal["auto", "xdp", "xdp-generic", "tc"]

_REDIRECT_TARGETS = frozenset(
    {
        "bnxt_en",
        "dpaa2-eth",
        "ena",
        "fsl_enetc",
        "i40e",
        "ice",
        "igb",
        "igc",
        "ixgbe",
        "mlx5_core",
        "mvneta",
        "mvpp2",
        "qede",
        "sfc",
        "stmmac",
    }
)
_NATIVE_XDP = _REDIRECT_TARGETS | {"atlantic", "hv_netvsc", "ixgbevf", "mlx4_en", "nfp", "nicvf", "virtio_net"}
"""Drivers with native XDP, and those of them that send redirected frames, in kernels too old to be asked (before 6.3)."""


def choose_hook(interface: Interface, requested: HookChoice, driver: str, features: XdpFeature | None) -> tuple[Hook, str]:
    """The hook, and the reason in words. ``features`` None: this kernel cannot be asked, so the driver's name decides.

    Generic XDP is nobody's choice but the user's: it runs on an skb, as TC does, and may do less.
    """
    if requested == "xdp-generic":
        return Hook.XDP, "as configured, behind the driver"
    if requested != "auto":
        return Hook(requested), "as configured"
    what = interface.kind or driver
    if interface.kind:
        return Hook.TC, f"{what} is virtual: XDP would cost segmentation and checksum offload"
    native = bool(features & XdpFeature.BASIC) if features is not None else driver in _NATIVE_XDP
    if native:
        return Hook.XDP, f"{what} has native XDP"
    return Hook.TC, f"{what or 'its driver'} has no native XDP"


def xdp_transmit(driver: str, features: XdpFeature | None) -> tuple[bool, str]:
    """Whether frames that XDP redirects to the interface really leave, and the reason in words. Ask after attaching."""
    if features is not None:
        if features & XdpFeature.NDO_XMIT:
            return True, "the driver sends frames redirected at XDP"
        return False, "the driver does not send frames redirected at XDP now"
    if driver in _REDIRECT_TARGETS:
        return True, f"{driver} is known to send frames redirected at XDP"
    return False, "this kernel cannot be asked whether the driver sends frames redirected at XDP"
