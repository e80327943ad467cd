"""The history has bounds, and drops the oldest: whatever entries make of it, and the same on every replica."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands, history, past
from coordinator.statemachine.commands import ExpireSessions, PutKey
from coordinator.statemachine.files import Compacted, CreateFile, DeleteRange, ReadDirectory, ReadFile
from tests.unit.statemachine.derived import restored
from tests.unit.statemachine.test_namespace import Tree


@pytest.mark.interpreted
def test_history_is_bounded_and_drops_the_oldest(monkeypatch):
    monkeypatch.setattr(history, "CHANGES_MAX", 10)
    tree = Tree()
    for value in range(300):
        tree.do(PutKey(f"k{value % 3}", b"%d" % value))
    kept = tree.machine.state.history
    assert len(kept.rows) <= 11
    assert sum(len(past) for past in kept.past.values()) <= 11 + 3 * history._STALE_MAX
    oldest = kept.compacted
    assert tree.query(ReadFile("k0", revision=oldest - 1)) == Compacted(oldest)
    value = int(tree.query(ReadFile("k0", revision=oldest)).value)
    assert value == max(v for v in range(0, 300, 3) if v <= oldest - (tree.index - 299))
    monkeypatch.setattr(history, "CHANGES_MAX", 1_000)
    monkeypatch.setattr(history, "HISTORY_BYTES_MAX", 1_000)
    for _ in range(20):
        tree.do(PutKey("large", bytes(300)))
    assert kept.bytes <= 1_300


@pytest.mark.interpreted
def test_history_is_bounded_under_transactions(monkeypatch):
    """It dropped 4 changes an entry, and an entry may make thousands."""
    monkeypatch.setattr(history, "CHANGES_MAX", 10)
    tree = Tree()
    kept = tree.machine.state.history
    for round_ in range(50):
        tree.do(commands.Transact((), tuple(PutKey(f"k{number}", b"%d" % round_) for number in range(8))))
        assert len(kept.rows) <= 10
    tree.do(commands.Transact((), tuple(PutKey(f"n{number}", b"") for number in range(100))))
    tree.do(DeleteRange("n", prefix=True))
    assert len(kept.rows) <= 10
    assert len(kept.past) <= 10


@pytest.mark.interpreted
def test_history_is_bounded_where_many_ephemeral_files_go_at_once(monkeypatch):
    """An expiry is the leader's own entry."""
    monkeypatch.setattr(history, "CHANGES_MAX", 10)
    tree = Tree()
    kept = tree.machine.state.history
    for _ in range(3):
        session = tree.open()
        for number in range(200):
            tree.ask(session, CreateFile(f"e{number}", b"", ephemeral=True))
        tree.node(ExpireSessions((session,)))
        assert len(kept.rows) <= 10


@pytest.mark.interpreted
def test_history_is_bounded_in_bytes_where_large_contents_follow_small_ones(monkeypatch):
    """Each put replaced a megabyte, and dropped four changes of nothing."""
    monkeypatch.setattr(history, "CHANGES_MAX", 1_000)
    monkeypatch.setattr(history, "HISTORY_BYTES_MAX", 100_000)
    tree = Tree()
    for _ in range(1_000):
        tree.do(PutKey("small", b""))
    for _ in range(200):
        tree.do(PutKey("large", bytes(50_000)))
    assert tree.machine.state.history.bytes <= 150_000


@pytest.mark.interpreted
def test_a_trim_behind_a_snapshot_drops_the_same(monkeypatch):
    """How much it drops hangs on what the entry made, and so on what the one before it left."""
    monkeypatch.setattr(history, "CHANGES_MAX", 40)
    monkeypatch.setattr(history, "HISTORY_BYTES_MAX", 100)
    tree = Tree()
    for number in range(30):
        tree.do(PutKey(f"k{number % 3}", bytes(number)))
    monkeypatch.setattr(history, "CHANGES_MAX", 4)
    other = restored(tree.machine)
    for number in range(10):
        tree.do(commands.Transact((), (PutKey("k0", bytes(number)), PutKey("k1", b""))))
        other.apply(tree.index, tree.log[-1])
        assert other.digest() == tree.machine.digest()


def test_a_directory_of_the_past_does_not_look_at_all_that_is_implied_below_it():
    """Of each path of 250 components there are as many; of 100,000 changes of such, more than a node has room for."""
    tree = Tree()
    tree.do(PutKey("a", b""))
    before = tree.index
    for number in range(20):
        tree.do(PutKey(f"d{number}" + "/x" * 240, b""))
    listed = tree.query(ReadDirectory("", before))
    assert ([child.name for child in listed.children], listed.count) == (["a"], 1)
    assert len(past.Tree(tree.machine.state, "", before)._then) <= 1 + 20
    assert tree.query(ReadDirectory("")).count == 21
