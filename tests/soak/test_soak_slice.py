"""A few rounds of `make soak`, the same ones each time; how long they take is no matter."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak.life import Life

pytestmark = pytest.mark.root

SEED, ROUNDS = 1, 2


def test_the_first_rounds_of_a_life(tmp_path: Path) -> None:
    with Life(SEED, tmp_path, "auto") as life:
        for number in range(1, ROUNDS + 1):
            seen = life.round(number)
            assert not seen.failures, (seen.events, seen.failures)
            assert seen.probes_by_fast_path
        assert life.end() == []
