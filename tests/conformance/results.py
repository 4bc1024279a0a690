"""Tables of outcomes, and the files that keep them: of13.json (every case) and of13.md (the table), one column a target.

Invariant: a run replaces its own target's column and leaves the others' alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.cases import Case
from conformance.outcome import NOT_RUN, Outcome
from os_ken.ofproto import ofproto_v1_3

VERSIONS = {"10": "1.0", "13": "1.3", "14": "1.4"}

_ERROR = re.compile(r"OFPErrorMsg\[type=(\w+), code=(\w+)\]")

# What in a reason is of the case and not of the cause.
_DETAILS = (
    (re.compile(r"^(Added incorrect (?:flows|meters|groups)).*", re.DOTALL), r"\1: statistics differ from what was sent"),
    (re.compile(r"^(Received incorrect packet):.*", re.DOTALL), r"\1"),
    (re.compile(r"^(Received incorrect packet-in): SW.*", re.DOTALL), r"\1: from the other switch"),
    (re.compile(r"^(Received unexpected throughput).*", re.DOTALL), r"\1"),
    (re.compile(r"^(malformed message from the target).*", re.DOTALL), r"\1"),
    (re.compile(r"^(target not connected).*", re.DOTALL), r"\1"),
)


@dataclass(frozen=True, slots=True)
class Column:
    """One target's run: ``conditions`` are what was measured and how, as text; ``outcomes`` by case."""

    target: str
    conditions: str
    outcomes: Mapping[str, Outcome]

    def passed(self, cases: Iterable[Case]) -> int:
        return sum(self.outcomes[case.name].passed for case in cases if case.name in self.outcomes)


def cause(reason: str) -> str:
    """A failure's reason without what differs from case to case, to count by; errors by the specification's names."""
    if error := _ERROR.search(reason):
        number, code = int(error[1], 16), int(error[2], 16)
        names = ofproto_v1_3.ofp_error_type_to_str(number), ofproto_v1_3.ofp_error_code_to_str(number, code)
        reason = _ERROR.sub(" ".join(name.partition("(")[0] for name in names), reason)
    for pattern, text in _DETAILS:
        reason = pattern.sub(text, reason)
    return reason or "no reason given"


def table(cases: Sequence[Case], columns: Sequence[Column]) -> str:
    """Passed cases by area (and, for matches, by what is expected) and target, in Markdown."""
    rows: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        rows[f"{case.area}, {case.kind}"].append(case)
    lines = [_row("cases", "number", *(column.target for column in columns)), _row("---", *["---:"] * (len(columns) + 1))]
    for name, members in [*sorted(rows.items()), ("**all**", list(cases))]:
        lines.append(_row(name, len(members), *(column.passed(members) for column in columns)))
    return "\n".join(lines)


def failures(column: Column) -> str:
    """Failed cases by cause, most frequent first, in Markdown; empty if all passed."""
    by_cause: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in column.outcomes.values():
        if not outcome.passed:
            reason = NOT_RUN if outcome.verdict == NOT_RUN else cause(outcome.reason)
            by_cause[reason][outcome.case.partition("#")[0].removesuffix(".json")] += 1
    if not by_cause:
        return ""
    lines = [_row("failed", "cause", "where"), _row("---:", "---", "---")]
    for reason, files in sorted(by_cause.items(), key=lambda item: -item[1].total()):
        named = ", ".join(f"{file} {number}" for file, number in files.most_common(4))
        more = f" and {len(files) - 4} more files" if len(files) > 4 else ""
        lines.append(_row(files.total(), reason.replace("|", "\\|"), named + more))
    return "\n".join(lines)


def worse(before: Mapping[str, Outcome], now: Mapping[str, Outcome]) -> list[str]:
    """Cases that passed and no longer do."""
    return [name for name, outcome in now.items() if name in before and before[name].passed and not outcome.passed]


def read(path: Path) -> dict[str, Column]:
    """The columns of a result file, by target; none if there is no such file."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Column(name, part["conditions"], {entry["case"]: Outcome(**entry) for entry in part["outcomes"]})
        for name, part in content["targets"].items()
    }


def write(folder: Path, version: str, cases: Sequence[Case], column: Column) -> tuple[Path, Path]:
    """Put a column into of{version}.json and of{version}.md of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data, text = folder / f"of{version}.json", folder / f"of{version}.md"
    columns = read(data) | {column.target: column}
    data.write_text(_dump(version, columns), encoding="utf-8")
    parts = [f"# Ryu switch tests, OpenFlow {VERSIONS[version]}", "", table(cases, list(columns.values())), ""]
    for one in columns.values():
        parts += [f"## {one.target}", "", one.conditions, ""]
        if listed := failures(one):
            parts += [listed, ""]
    text.write_text("\n".join(parts), encoding="utf-8")
    return data, text


def _dump(version: str, columns: Mapping[str, Column]) -> str:
    """JSON with a line a case, so that two runs can be compared by diff."""
    parts = []
    for name, column in columns.items():
        lines = ",\n".join(f"      {outcome.to_json()}" for outcome in column.outcomes.values())
        head = f'    {json.dumps(name)}: {{\n     "conditions": {json.dumps(column.conditions)},'
        parts.append(f'{head}\n     "outcomes": [\n{lines}\n     ]\n    }}')
    joined = ",\n".join(parts)
    return f'{{\n  "openflow": {json.dumps(VERSIONS[version])},\n  "targets": {{\n{joined}\n  }}\n}}\n'


def _row(*cells: Any) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
