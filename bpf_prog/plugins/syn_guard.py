"""Drops TCP SYNs of a source prefix beyond a rate: ``rate`` a second after ``burst`` at once, by prefixes of these lengths."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.model.plugin import Argument, Maps, Plugin, PluginAction


def check(arguments: Mapping[str, int]) -> str:
    if not arguments["rate"] or not arguments["burst"]:
        return "rate and burst must be at least 1"
    if arguments["prefix4"] > 32 or arguments["prefix6"] > 128:
        return "prefix4 is at most 32 and prefix6 at most 128"
    return ""


def statistics(maps: Maps) -> Mapping[str, int]:
    return {"sources": sum(1 for _ in maps.items("sources"))}


PLUGIN = Plugin(
    id=2,
    action=PluginAction(
        arguments=(Argument("rate", 4), Argument("burst", 2), Argument("prefix4", 1), Argument("prefix6", 1)), check=check
    ),
    counters=("passed", "dropped"),
    statistics=statistics,
)
