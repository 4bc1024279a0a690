"""A kernel counts as tested only if tests ran there and none failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tested import Tested, read_report

CASES = """
import pytest

def test_good(): pass

@pytest.mark.skip
def test_skipped(): pass
"""
BAD = """
def test_bad(): assert 1 == 2

def test_error(no_such_fixture): pass
"""


def report(tmp_path: Path, cases: str) -> Tested:
    """Of a run of pytest on these cases."""
    (tmp_path / "test_cases_of_a_guest.py").write_text(cases)
    path = tmp_path / "tests.xml"
    arguments = ["-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", f"--junitxml={path}", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=tmp_path, capture_output=True, check=False)
    result = Tested("bookworm", "6.1.0")
    read_report(path, result)
    return result


def test_what_passed_and_was_skipped_is_counted(tmp_path: Path) -> None:
    result = report(tmp_path, CASES)
    assert (result.passed, result.failed, result.skipped, result.failures) == (1, 0, 1, [])
    assert result.seconds > 0
    assert result.ok


def test_failures_and_errors_are_named(tmp_path: Path) -> None:
    result = report(tmp_path, CASES + BAD)
    assert (result.passed, result.failed, result.skipped) == (1, 2, 1)
    assert [failure.partition(":")[0] for failure in result.failures] == ["test_cases_of_a_guest"] * 2
    assert "test_bad: assert 1 == 2" in result.failures[0]
    assert not result.ok


def test_no_report_and_no_test_are_not_ok(tmp_path: Path) -> None:
    result = Tested("bookworm", "6.1.0")
    read_report(tmp_path / "tests.xml", result)
    assert not result.ok
    assert not report(tmp_path, "").ok
