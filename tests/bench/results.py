"""What a measurement is: two things measured in turn, their ratio, and what we aim at.

Invariant: a ratio is the median of ratios of neighbours in time, so that a machine that slows down slows both; no figure is
compared with one of another run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Aim:
    """``op`` is ``<=`` or ``>=``, on the ratio as it is shown, to two decimals, or on the value if there is no reference; ``±`` for
    one that is to be 1, within ``limit``.
    """

    op: str
    limit: float

    def met(self, ratio: float) -> bool:
        shown = round(ratio, 2)
        if self.op == "±":
            return abs(shown - 1) <= self.limit + 1e-9
        return shown <= self.limit if self.op == "<=" else shown >= self.limit

    @classmethod
    def parse(cls, text: str) -> Aim:
        """From what ``str`` made of one."""
        sign, _, limit = text.removeprefix("1 ").partition(" ")
        return cls({"≤": "<=", "≥": ">=", "±": "±"}[sign], float(limit))

    def __str__(self) -> str:
        if self.op == "±":
            return f"1 ± {self.limit:g}"
        return f"{'≤' if self.op == '<=' else '≥'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``name`` and ``reference`` say what; samples are in ``unit``, in pairs measured one after the other.

    Without samples, ``note`` says why nothing could be measured.
    """

    id: str
    group: str
    name: str
    unit: str
    samples: Sequence[float]
    reference: str = ""
    reference_samples: Sequence[float] = ()
    aim: Aim | None = None
    note: str = ""

    @property
    def value(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def reference_value(self) -> float | None:
        return statistics.median(self.reference_samples) if self.reference_samples else None

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.samples, self.reference_samples, strict=False) if b > 0]

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def spread(self) -> float | None:
        """Of the ratio, or of the value where there is none: half the distance between its quartiles, as a part of the median."""
        values = self.ratios or list(self.samples)
        middle = statistics.median(values) if values else 0.0
        if len(values) < 2 or not middle:
            return None
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return (high - low) / 2 / middle

    @property
    def met(self) -> bool | None:
        """Of the ratio, or of the value if it has no reference."""
        figure = self.ratio if self.reference else self.value
        return self.aim.met(figure) if self.aim is not None and figure is not None else None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "samples": list(self.samples),
            "reference": self.reference,
            "reference_value": self.reference_value,
            "reference_samples": list(self.reference_samples),
            "ratio": self.ratio,
            "spread": self.spread,
            "aim": str(self.aim) if self.aim is not None else None,
            "met": self.met,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Row:
        """From what ``to_json`` made of one."""
        return cls(
            row["id"],
            row["group"],
            row["name"],
            row["unit"],
            row["samples"],
            row["reference"],
            row["reference_samples"],
            Aim.parse(row["aim"]) if row["aim"] else None,
            row["note"],
        )


def in_turn(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Samples of each: A B C, A B C … Every other round goes backwards, so that nobody is always behind the same one."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            samples[name].append(contenders[name]())
    return samples
