"""Of tests of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.replica.company import Company


@pytest.fixture
def company(tmp_path: Path) -> Company:
    return Company(tmp_path, ("node1", "node2", "node3"))
