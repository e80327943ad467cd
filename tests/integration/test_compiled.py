"""A running installation runs what was built; that it does the same as the modules is tests/test_compiled.py's."""

from __future__ import annotations

from pathlib import Path

from tests.integration.installation import Installation
from tests.integration.quorum import NODES
from tests.integration.test_metrics import scrape, urls


def test_nodes_run_what_was_built(installation: Installation, build: Path) -> None:
    where = urls(installation)
    assert {scrape(where[node])["conclave_compiled", (("node", node),)] for node in NODES} == {1}
    assert all(f"the replicas' side runs compiled: {build}" in installation.log(node) for node in NODES)
