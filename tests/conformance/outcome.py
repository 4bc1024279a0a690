"""What became of one case: the line that a shard's process sends up, and that result files hold.

Invariant: a case is passed only if the tool said OK and every message from the target could be parsed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``reason`` is the tool's own, or empty. ``attempts``: on which the verdict was reached. ``evidence`` of a failure that has to
    do with a frame: ``sent``, ``expected`` and ``received`` in hexadecimal; of a throughput: ``offered``, packets a second.
    """

    case: str
    verdict: str
    reason: str = ""
    seconds: float = 0.0
    attempts: int = 1
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.verdict == PASSED

    def to_json(self) -> str:
        """One line, without what is as always."""
        found = asdict(self)
        always = {"reason": "", "attempts": 1, "evidence": {}}
        return json.dumps({key: value for key, value in found.items() if key not in always or value != always[key]})

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        return cls(**json.loads(text))
