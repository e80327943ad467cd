"""The comparison, end to end and short: on the peers that need nothing but what Conclave itself runs on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import compare

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SHORT = ["--callers", "2", "--rounds", "1", "--seconds", "0.2", "--kills", "1", "--stops", "1"]


def test_a_short_run_has_a_figure_for_every_peer_and_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    options = ["--peers", "conclave,floor,redis", "--works", "lock,write,read,handover,failover"]
    assert compare.main([*SHORT, *options, "--json", str(file), "--directory", str(tmp_path / "data")]) == 0
    record = json.loads(file.read_text())
    assert record["left_out"] == {}
    cells = {(cell["peer"], cell["work"]) for cell in record["cells"]}
    assert cells == {
        *(("conclave", work) for work in ("lock", "write", "read", "handover", "failover")),
        *(("floor", work) for work in ("lock", "write", "read")),
        *(("redis", work) for work in ("lock", "handover")),
    }
    assert all(cell["value"] > 0 and cell["errors"] == 0 for cell in record["cells"])
    assert all(cell["cpu_us"] > 0 for cell in record["cells"] if cell["work"] != "failover")
    assert len(record["machine"]["fdatasync_us"]) == 1
    assert "| work " in capsys.readouterr().out
    assert not [*(tmp_path / "data").iterdir()], "nothing is left of the peers"
