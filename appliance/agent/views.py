"""What the agent shows of itself, as plain mappings and lists: the results of the control socket's commands.

Invariant: looking changes nothing but the statistics that are read for it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from typing import Any

from appliance.agent import render
from appliance.agent.port_manager import AttachedPort, PortManager
from appliance.agent.tier import tier_of
from appliance.config import PortSpec
from appliance.datapath.driver import Datapath, DatapathPort, TierCounters
from appliance.model.ports import PortConfig
from appliance.openflow.flow import FlowModFlags
from appliance.pipeline.flow_table import FlowEntry, FlowTable
from appliance.switch.megaflows import LiveMegaflow
from appliance.switch.switch import Switch

Json = dict[str, Any]

_SUMMED = ("rx_packets", "rx_bytes", "forwarded_xdp", "forwarded_tc", "dropped", "punted")


# ── show ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def switch(switch: Switch, datapath: Datapath) -> Json:
    """The part of ``show`` that the switch and the fast path know."""
    return {
        "datapath_id": f"{switch.datapath_id:016x}",
        "standalone": switch.standalone,
        "ports": len(switch.ports),
        "flows": switch.flow_count,
        "megaflows": len(switch.megaflow_ids),
        "megaflow_limit": switch.megaflow_limit,
        "masks": switch.mask_count,
        "prefetched": switch.prefetched,
        "tiers": tiers(datapath.port_counters().values()),
        "drops": {reason.name.lower(): count for reason, count in datapath.drops().items() if count},
        "upcalls": {reason.name.lower(): count for reason, count in switch.upcalls.items() if count},
    }


def tiers(counters: Iterable[TierCounters]) -> Json:
    """What became of all packets that came in on the ports. ``shares`` add up to 1, or are all 0 if none came."""
    counters = list(counters)
    total = {name: sum(getattr(counter, name) for counter in counters) for name in _SUMMED}
    packets = {
        "xdp": total["forwarded_xdp"],
        "tc": total["forwarded_tc"],
        "slow_path": total["punted"],
        "dropped": total["dropped"],
    }
    dealt_with = sum(packets.values())
    return {
        "packets": packets,
        "shares": {tier: count / dealt_with if dealt_with else 0.0 for tier, count in packets.items()},
        "rx_packets": total["rx_packets"],
        "rx_bytes": total["rx_bytes"],
    }


def versions(own: str) -> Json:
    return {
        "ofswitch": own,
        "openflow": "1.3",
        "kernel": os.uname().release,
        "python": platform.python_version(),
    }


# ── flows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def flows(tables: Iterable[FlowTable], now: float) -> Iterator[Json]:
    """Flow entries, table by table, the highest priority first."""
    for table in tables:
        for entry in table.entries():
            yield _flow(table.table_id, entry, now)


def _flow(table_id: int, entry: FlowEntry, now: float) -> Json:
    match = render.match_fields(entry.match)
    return {
        "table_id": table_id,
        "priority": entry.priority,
        "match": match,
        "match_text": render.one_line(match),
        "instructions": render.instructions(entry.instructions),
        "cookie": f"{entry.cookie:#x}",
        "n_packets": entry.packet_count,
        "n_bytes": entry.byte_count,
        "duration": max(0.0, now - entry.created_at),
        "idle_age": max(0.0, now - entry.last_used),
        "idle_timeout": entry.idle_timeout,
        "hard_timeout": entry.hard_timeout,
        "flags": [str(flag.name).lower() for flag in FlowModFlags if entry.flags & flag],
    }


# ── megaflows ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def megaflows(live: Iterable[LiveMegaflow], ports: PortManager, now: float) -> Iterator[Json]:
    """Megaflows in the order in which they were made."""

    def port_at(number: int) -> tuple[DatapathPort, str] | None:
        attached = ports.get(number)
        return None if attached is None else (attached.port, attached.reason)

    for item in live:
        match = render.key_fields(item.megaflow.key, item.megaflow.mask)
        tier = tier_of(item.megaflow, port_at, render.port)
        yield {
            "id": item.megaflow.id,
            "match": match,
            "match_text": render.one_line(match),
            "actions": render.datapath_actions(item.megaflow),
            "packets": item.statistics.packets,
            "bytes": item.statistics.bytes,
            "punted": item.punted,
            "last_used": max(0.0, now - item.last_used),
            "tier": tier.name,
            "why": tier.why,
            "exceptions": tier.exceptions,
        }


# ── plug-ins ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def plugins(datapath: Datapath) -> Iterator[Json]:
    """All that were found, those too that were left out."""
    for state in datapath.plugins.states():
        plugin = state.file.plugin
        action, match = (plugin.action, plugin.match) if plugin is not None else (None, None)
        yield {
            "name": state.file.name,
            "source": state.file.source,
            "id": plugin.id if plugin is not None else None,
            "state": "left out" if state.fault else "works",
            "fault": state.fault or None,
            "arguments": [f"{argument.name}/{argument.bytes}" for argument in action.arguments] if action is not None else None,
            "plugin_bits": f"{match.mask:#010x}" if match is not None else None,
            "counters": dict(state.counted),
        }


# ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def ports(manager: PortManager, switch: Switch, datapath: Datapath) -> Iterator[Json]:
    """Configured ports by number, those too whose interface is not there."""
    counters = datapath.port_counters()
    known = {port.number: port for port in switch.ports}
    for spec in sorted(manager.specs, key=lambda spec: spec.number):
        attached = manager.get(spec.number)
        if attached is None:
            yield _missing(spec)
            continue
        port = known.get(spec.number)
        config = PortConfig.NONE if port is None else port.config
        big_tcp, big_tcp_reason = manager.big_tcp.state(spec.number)
        yield {
            "number": spec.number,
            "interface": spec.interface if port is None else port.name,
            "state": "down" if port is None or not port.up else "up",
            "link": "up" if attached.interface.up else "down",
            "problem": manager.hooks.problem(spec.number),
            "config": [str(bit.name).lower() for bit in PortConfig if config & bit],
            "hw_addr": (attached.interface.mac if port is None else port.hw_addr).hex(":"),
            "mtu": attached.interface.mtu,
            "speed_kbps": 0 if port is None else port.curr_speed,
            "hook": attached.port.hook.value,
            "hook_reason": attached.reason,
            "output": "redirect_peer" if attached.port.other_end else "redirect",
            "output_reason": attached.output_reason,
            "big_tcp": big_tcp,
            "big_tcp_reason": big_tcp_reason,
            "counters": _counters(attached, counters.get(spec.number, TierCounters())),
        }


def _missing(spec: PortSpec) -> Json:
    return {"number": spec.number, "interface": spec.interface, "state": "missing"}


def _counters(attached: AttachedPort, tier: TierCounters) -> Json:
    return {
        "rx_packets": tier.rx_packets,
        "rx_bytes": tier.rx_bytes,
        "tx_packets": tier.tx_packets + attached.sent_packets,
        "tx_bytes": tier.tx_bytes + attached.sent_bytes,
        "xdp": tier.forwarded_xdp,
        "tc": tier.forwarded_tc,
        "slow_path": tier.punted,
        "dropped": tier.dropped,
        "tx_slow_path": attached.sent_packets,
        "lost_copies": tier.lost,
    }
