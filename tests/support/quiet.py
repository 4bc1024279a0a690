"""Hosts that say nothing by themselves while a test counts packets."""

from __future__ import annotations

from functools import partial

from appliance.lab import namespace
from appliance.lab.testbed import Testbed


def never_ask_again(bed: Testbed) -> None:
    """The hosts keep for an hour an address that they have learned; else they ask for it again after five seconds."""
    for host in bed.hosts:
        for family in ("ipv4", "ipv6"):
            path = f"net/{family}/neigh/{host.interface}/delay_first_probe_time"
            bed.inside(host.name, partial(namespace.write_sysctl, path, 3600))
