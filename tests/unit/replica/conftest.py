"""Of tests of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.replica.company import Company
from tests.unit.replica.stage import Stage


@pytest.fixture
def company(tmp_path: Path) -> Company:
    return Company(tmp_path, ("node1", "node2", "node3"))


@pytest.fixture
def stage() -> Stage:
    """Three nodes, of which the first leads, and the others have heard of it."""
    stage = Stage()
    stage.elect("node1")
    stage.pass_time(100_000)
    return stage
