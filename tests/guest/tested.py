"""What came of the tests on one kernel, from the report that pytest writes (``--junitxml``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree


@dataclass(slots=True)
class Tested:
    """What came of the tests on one kernel; ``error`` if they did not get to their end."""

    suite: str
    kernel: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.passed > 0 and not self.failed and not self.error


def read_report(path: Path, result: Tested) -> None:
    """Nothing, if there is no report."""
    suite = ElementTree.parse(path).getroot().find("testsuite") if path.exists() else None
    if suite is None:
        return
    numbers = {name: int(suite.get(name, "0")) for name in ("tests", "errors", "failures", "skipped")}
    result.failed = numbers["errors"] + numbers["failures"]
    result.skipped = numbers["skipped"]
    result.passed = numbers["tests"] - result.failed - result.skipped
    result.seconds = float(suite.get("time", "0"))
    for case in suite.iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            result.failures.append(f"{case.get('classname')}::{case.get('name')}: {problem.get('message', '')[:300]}")
