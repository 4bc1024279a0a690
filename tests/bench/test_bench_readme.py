"""The README claims what the runs in bench/results/ say, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from readme import SHOWN, replaced, table
from results import Aim, Row

README = Path(__file__).with_name("readme.py")


def test_the_readme_is_what_the_results_say() -> None:
    done = subprocess.run([sys.executable, str(README), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_row_is_shown_with_its_ratio_and_whether_its_aim_is_met() -> None:
    rows = [
        Row("a", "group", "ofswitch, one", "ns", [30.0], "other", [20.0], Aim("<=", 1.4)),
        Row("b", "group", "ofswitch, lost", "packets", [0.0], aim=Aim("<=", 0)),
    ]
    assert table(rows)[2:] == [
        "| **group** | | | | | | |",
        "| One | 30.0 ns | other | 20.0 ns | 1.50 | ≤ 1.4 | **no** |",
        "| Lost | 0.00 packets |  |  |  | ≤ 0 | yes |",
    ]


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    text = "above\n<!-- x -->\nold\n<!-- /x -->\nbelow\n"
    assert replaced(text, "x", ["new", "lines"]) == "above\n<!-- x -->\nnew\nlines\n<!-- /x -->\nbelow\n"
    with pytest.raises(SystemExit, match="no part"):
        replaced(text, "y", [])


def test_no_row_is_named_twice() -> None:
    assert len(set(SHOWN)) == len(SHOWN)
