"""The switch's ports as Linux interfaces: what they are, how they are doing, and where the fast path should meet them."""

from appliance.ports.big_tcp import BIG_BYTES, BigTcp, End
from appliance.ports.claims import Claims
from appliance.ports.counters import read_counters, since
from appliance.ports.ethtool import PortFeature, advertise
from appliance.ports.hook import HookChoice, choose_hook, xdp_transmit
from appliance.ports.interface import Interface, PortError, find, interface_names, interfaces, set_promiscuous, set_up
from appliance.ports.local import LocalSpec, make_local, remove_local
from appliance.ports.offloads import Finished, Offloads
from appliance.ports.other_end import OutputMethod, choose_output
from appliance.ports.port import describe
from appliance.ports.queues import QueueRates, queue_counters, set_queues
from appliance.ports.tunnel import TunnelDevice, make_tunnel_device, remove_tunnel_devices
from appliance.ports.watch import LinkChange, LinkWatcher
from appliance.ports.xdp_features import XdpFeature, xdp_features

__all__ = [
    "BIG_BYTES",
    "BigTcp",
    "Claims",
    "End",
    "Finished",
    "HookChoice",
    "Interface",
    "LinkChange",
    "LinkWatcher",
    "LocalSpec",
    "Offloads",
    "OutputMethod",
    "PortError",
    "PortFeature",
    "QueueRates",
    "TunnelDevice",
    "XdpFeature",
    "advertise",
    "choose_hook",
    "choose_output",
    "describe",
    "find",
    "interface_names",
    "interfaces",
    "make_local",
    "make_tunnel_device",
    "queue_counters",
    "read_counters",
    "remove_local",
    "remove_tunnel_devices",
    "set_promiscuous",
    "set_queues",
    "set_up",
    "since",
    "xdp_features",
    "xdp_transmit",
]
