"""The cases of the Ryu switch tests that ship with os-ken: what there is, what each one needs, and which ones a run takes.

A file is a JSON list: its title, then cases. A case's `prerequisite` is what the target gets (flow, group and meter mods), its
`tests` are what is sent and what is expected. os-ken itself turns them into messages and frames (tester.TestFile); nothing of
a case is interpreted here but what selection, planning and tables need.

Invariant: a case's name, "match/00_IN_PORT.json#0", is the place where os-ken's own loader finds it: directory, file, position.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THROUGHPUT_SECONDS = 30.0
"""What the tool sends for where a case does not say (tester.DEFAULT_DURATION_TIME)."""

EGRESS, PACKET_IN, TABLE_MISS, THROUGHPUT = "egress", "packet-in", "table-miss", "throughput"
KINDS = (EGRESS, PACKET_IN, TABLE_MISS, THROUGHPUT)
_KEYS = {"egress": EGRESS, "PACKET_IN": PACKET_IN, "table-miss": TABLE_MISS}


@dataclass(frozen=True, slots=True)
class Case:
    """``seconds`` is the least that it takes. ``needs`` names what the target must know, as in the file: ``OFPActionPushVlan``,
    ``OFPGroupMod``, ``match:pbb_isid``, ``set_field:ip_ttl``, ``OFPInstructionMeter``.
    """

    file: str
    index: int
    description: str
    kind: str
    seconds: float
    needs: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.file}#{self.index}"

    @property
    def area(self) -> str:
        """The directory: ``match``, ``action/25_SET_FIELD``…"""
        return self.file.rpartition("/")[0]


def directory(version: str) -> Path:
    """Where os-ken keeps the cases of a version (``13``). Raises FileNotFoundError if os-ken is not here."""
    spec = importlib.util.find_spec("os_ken")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("os-ken is not installed for this Python")
    path = Path(spec.origin).parent / "tests" / "switch" / f"of{version}"
    if not path.is_dir():
        raise FileNotFoundError(f"this os-ken has no {path}")
    return path


def load(root: Path) -> tuple[Case, ...]:
    """All cases below a directory, in the order of their names."""
    found = []
    for path in sorted(root.rglob("*.json")):
        items = [item for item in json.loads(path.read_text(encoding="utf-8")) if isinstance(item, dict)]
        file = path.relative_to(root).as_posix()
        found += [_case(file, index, item) for index, item in enumerate(items)]
    return tuple(found)


def select(
    cases: Iterable[Case], only: Sequence[str] = (), skip: Sequence[str] = (), kinds: Sequence[str] = ()
) -> tuple[Case, ...]:
    """Cases whose "name description" has one of the regular expressions ``only`` in it and none of ``skip``. None given: all."""
    wanted, unwanted = [re.compile(text) for text in only], [re.compile(text) for text in skip]

    def taken(case: Case) -> bool:
        text = f"{case.name} {case.description}"
        if wanted and not any(pattern.search(text) for pattern in wanted):
            return False
        if any(pattern.search(text) for pattern in unwanted):
            return False
        return not kinds or case.kind in kinds

    return tuple(case for case in cases if taken(case))


def split(cases: Sequence[Case], shards: int) -> list[list[Case]]:
    """Cases in at most ``shards`` lists of about equal time: the longest first, each to the list with the least so far."""
    plans: list[list[Case]] = [[] for _ in range(max(1, min(shards, len(cases))))]
    load = [0.0] * len(plans)
    for case in sorted(cases, key=lambda case: -case.seconds):
        place = load.index(min(load))
        plans[place].append(case)
        load[place] += case.seconds
    return [sorted(plan, key=lambda case: (case.file, case.index)) for plan in plans]


def _case(file: str, index: int, item: dict[str, Any]) -> Case:
    kinds, seconds = set(), 0.1
    for test in item["tests"]:
        for key, kind in _KEYS.items():
            if key in test:
                kinds.add(THROUGHPUT if isinstance(test[key], dict) else kind)
        if isinstance(test["ingress"], dict):
            seconds += float(test["ingress"]["packets"].get("duration_time", THROUGHPUT_SECONDS))
        elif "table-miss" in test:
            seconds += 1.0
    (kind,) = kinds
    return Case(file, index, item.get("description", ""), kind, seconds, frozenset(_needs(item["prerequisite"], "")))


def _needs(value: object, inside: str) -> Iterator[str]:
    if isinstance(value, list):
        for member in value:
            yield from _needs(member, inside)
    elif isinstance(value, dict):
        for key, member in value.items():
            if key == "OXMTlv":
                yield f"{inside}:{member['field']}" + ("/mask" if member.get("mask") is not None else "")
                continue
            if key.startswith("OFP") and key != "OFPMatch":
                yield key
            yield from _needs(member, {"OFPMatch": "match", "OFPActionSetField": "set_field"}.get(key, inside))
