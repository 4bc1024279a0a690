"""What the user asked for: YAML and flags in, one frozen ``Config`` out, or every fault at once."""

from appliance.config.addresses import DEFAULT_OPENFLOW_PORT, ControllerAddress, ListenAddress, TlsFiles
from appliance.config.faults import ConfigError, Fault
from appliance.config.lab import Lab, LabHost
from appliance.config.load import LabFile, dump, is_lab, load, load_lab
from appliance.config.model import DEFAULT_APPS, RUN_DIRECTORY, BigTcpChoice, Config, IntegratedController
from appliance.config.plugins import find as find_plugins
from appliance.config.port import PortSpec, QueueSpec
from appliance.config.tunnel import TunnelOptions

__all__ = [
    "DEFAULT_APPS",
    "DEFAULT_OPENFLOW_PORT",
    "RUN_DIRECTORY",
    "BigTcpChoice",
    "Config",
    "ConfigError",
    "ControllerAddress",
    "Fault",
    "IntegratedController",
    "Lab",
    "LabFile",
    "LabHost",
    "ListenAddress",
    "PortSpec",
    "QueueSpec",
    "TlsFiles",
    "TunnelOptions",
    "dump",
    "find_plugins",
    "is_lab",
    "load",
    "load_lab",
]
