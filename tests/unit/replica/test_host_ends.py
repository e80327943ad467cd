"""What a node does whose journal fails, or whose loop does: it ends, at once and with a status that says which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator import records
from coordinator.replica.host import EXIT_DEFECT, EXIT_JOURNAL, Host, HostSettings
from coordinator.replica.intents import HostReplica


class Ended(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    def ends(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", ends)
    monkeypatch.setattr(records, "quicken", lambda _: None)
    settings = HostSettings(
        "node1", tmp_path / "node1", "redis://127.0.0.1:1/0", "0123abcd", b"p" * 32, False, lambda: None
    )
    made = Host(settings)
    made.intents.post(HostReplica("a", 77, "second"))
    return made


def test_a_journal_that_fails_ends_the_process(node: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows what is on disk then, and it is not tried again on the same handle (docs/design.md, rule 3)."""
    node._journal._db.execute("PRAGMA query_only = 1")  # As a disk that takes no more writes.
    with pytest.raises(Ended) as ended:
        node._run()
    assert ended.value.args == (EXIT_JOURNAL,)
    assert "node1: the journal failed, so the process ends: " in caplog.text
    assert "journal.sqlite3" in caplog.text


@pytest.mark.interpreted
def test_a_defect_ends_the_process_too(
    node: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker whose loop has ended, and that lives on, would be a node that seems to be there."""

    def raises() -> None:
        raise ValueError("it was not thought of")

    monkeypatch.setattr(node._turn, "run", raises)
    with pytest.raises(Ended) as ended:
        node._run()
    assert ended.value.args == (EXIT_DEFECT,)
    assert "it was not thought of" in caplog.text
