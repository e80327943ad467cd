"""The journal: what was committed is there after a restart, and damage is named, never served."""

from __future__ import annotations

import errno
import io
import os
import secrets
import sqlite3
import sys
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.consensus.engine import HardState, Snapshot
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.replica import births, directory, sums
from coordinator.replica.births import AlreadyBorn, create
from coordinator.replica.directory import DirectoryHeld, NodeDirectory, OpenFiles
from coordinator.replica.journal import COMMIT_LAG_MAX, FILE_NAME, IdentityRetired, SqliteJournal
from coordinator.replica.ports import Head, JournalFailed, Write
from coordinator.replica.stored import JournalDamaged, JournalUnusable, StoredLog, StoredReplica
from coordinator.statemachine.locks import EPOCH_MAX
from coordinator.wire import Token

REPLICA = StoredReplica(2**62 + 1, 9, "default")


def born(path) -> SqliteJournal:
    journal = SqliteJournal(path)
    journal.admit(REPLICA, 1, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))
    journal.load(REPLICA.replica)
    return journal


def write(first_index: int, *entries: bytes, term: int = 2, vote: int = 0, commit: int = 0) -> Write:
    return Write(REPLICA.replica, HardState(term, vote, commit), first_index, [term] * len(entries), list(entries))


def with_others(journal: SqliteJournal) -> None:
    """A replica that rests and was asked for, and one that is gone."""
    journal.admit(StoredReplica(4, 7, "third"), None, StoredLog(HardState(0, 0, 0), [], []), "for e")
    journal.mark_resting(4, resting=True)
    journal.admit(StoredReplica(5, 8, "second"), None, StoredLog(HardState(0, 0, 0), [], []), "for d")
    journal.retire(StoredReplica(5, 8, "second"), 4, "no member")


def reopened(journal: SqliteJournal, path) -> StoredLog:
    journal.close()
    again = SqliteJournal(path)
    try:
        return again.load(REPLICA.replica)
    finally:
        again.close()


def test_an_empty_journal_holds_no_replica_and_has_an_identity_of_its_own(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first, second = SqliteJournal(one), SqliteJournal(two)
    assert first.replicas() == []
    assert first.node_identity != second.node_identity
    first.close()
    assert SqliteJournal(one).node_identity == first.node_identity


def test_a_journal_in_another_nodes_place_is_refused_and_stays_as_it_is(tmp_path):
    """Its replicas are members under the name of the other node, and one that has a copy of it may run."""
    create(tmp_path / "nodes", ["node1", "node2"], "default", TOKEN)
    (tmp_path / "nodes" / "node1").rename(tmp_path / "nodes" / "node3")
    for _ in range(2):
        with pytest.raises(JournalDamaged, match="is node node1's, and lies where node3's is to be"):
            SqliteJournal(tmp_path / "nodes" / "node3", "node3")
    (tmp_path / "nodes" / "node3").rename(tmp_path / "nodes" / "node1")
    for node in ("node1", "node2"):
        with closing(SqliteJournal(tmp_path / "nodes" / node, node)) as journal:
            assert [stored.cluster_name for stored in journal.replicas()] == ["default"]


def test_a_journal_of_before_they_had_names_is_of_the_first_node_that_opens_it(tmp_path):
    born(tmp_path).close()
    SqliteJournal(tmp_path, "node1").close()
    SqliteJournal(tmp_path, "node1").close()
    with pytest.raises(JournalDamaged, match="is node node1's, and lies where node2's is to be"):
        SqliteJournal(tmp_path, "node2")


def test_a_removed_replica_leaves_a_tombstone_and_is_swept_bit_by_bit(tmp_path):
    journal = born(tmp_path)
    other = StoredReplica(5, 8, "second")
    journal.admit(other, 4, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))
    snapshot = Snapshot(1, 1, Configuration((Member(REPLICA.replica, "node1"),)), secrets.token_bytes(5 * 2**20))
    journal.commit([write(2, b"\x01a")._replace(head=Head(snapshot, 1, 1, keep_tail=True))])
    journal.retire(REPLICA, 7, "no member")
    assert journal.replicas() == [other]
    sweeps = 1
    while journal.sweep(2):
        sweeps += 1
    assert sweeps >= 3
    with pytest.raises(IdentityRetired):
        journal.admit(REPLICA, None, StoredLog(HardState(0, 0, 0), [], []))
    journal.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        for table in ("hard_states", "batches", "heads", "snapshots"):
            rows = db.execute(f"SELECT DISTINCT replica FROM {table}").fetchall()
            assert rows in ([], [(other.replica,)]), table
    again = SqliteJournal(tmp_path)
    assert again.tombstones() == {REPLICA.replica: "no member"}
    assert again.epochs() == {"default": 7, "second": 4}
    assert again.load(other.replica).entries == [b"\x02first"]


def test_what_an_older_version_made_gets_the_later_tables(tmp_path):
    born(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        for table in ("tombstones", "resting", "requests", "stopped", "summed"):
            db.execute(f"DROP TABLE {table}")
    again = SqliteJournal(tmp_path)
    assert (again.tombstones(), again.resting(), again.replica_of_request("r")) == ({}, set(), None)
    assert again.load(REPLICA.replica).entries == [b"\x02first"]


def test_what_an_older_version_did_in_between_is_no_damage(tmp_path):
    """It knows no checksums of small rows: it admits replicas without, and leaves that of one which it removes."""
    journal = born(tmp_path)
    with_others(journal)
    journal.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute("DELETE FROM replicas WHERE replica = 4")
        db.execute("DELETE FROM hard_states WHERE replica = 4")
        db.execute("DELETE FROM resting")
        db.execute("INSERT INTO tombstones VALUES (4, 7, 'third', 'no member')")
        db.execute("INSERT OR REPLACE INTO tombstones VALUES (5, 8, 'second', 'once more')")
        db.execute("INSERT INTO replicas VALUES (6, 9, 'fourth')")
        db.execute("INSERT INTO requests VALUES ('for f', 6)")
        db.commit()
    journal = SqliteJournal(tmp_path)
    assert journal.replicas() == [StoredReplica(6, 9, "fourth"), REPLICA]
    assert journal.tombstones() == {4: "no member", 5: "once more"}
    journal._db.execute("UPDATE replicas SET cluster = 10 WHERE replica = 6")
    journal.close()
    with pytest.raises(JournalDamaged, match="row 6 of replicas does not match"):
        SqliteJournal(tmp_path)


def test_term_vote_and_log_survive(tmp_path):
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", b"\x01b", term=3, vote=77, commit=2)])
    stored = reopened(journal, tmp_path)
    assert stored == StoredLog(HardState(3, 77, 2), [1, 3, 3], [b"\x02first", b"\x01a", b"\x01b"])


def test_the_commit_index_on_disk_may_lag_and_term_and_vote_may_not(tmp_path):
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", commit=1)])
    journal.commit([write(3, b"\x01b", commit=2)])
    journal.commit([write(4, b"\x01c", commit=3)])
    assert reopened(journal, tmp_path).hard_state == HardState(2, 0, 1)
    journal = SqliteJournal(tmp_path)
    journal.load(REPLICA.replica)
    journal.commit([write(5, *[b"\x01d"] * COMMIT_LAG_MAX, commit=4)])
    journal.commit([write(5 + COMMIT_LAG_MAX, b"\x01e", commit=4 + COMMIT_LAG_MAX)])
    assert reopened(journal, tmp_path).hard_state.commit == 4 + COMMIT_LAG_MAX
    journal = SqliteJournal(tmp_path)
    journal.load(REPLICA.replica)
    journal.commit([write(6 + COMMIT_LAG_MAX, vote=7, commit=5 + COMMIT_LAG_MAX)])
    assert reopened(journal, tmp_path).hard_state == HardState(2, 7, 5 + COMMIT_LAG_MAX)


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=4)), max_size=12
    )
)
@settings(max_examples=12, deadline=None)
def test_a_tail_is_replaced_wherever_it_is_cut(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("journal")
    journal = born(path)
    model = [b"\x02first"]
    for back, entries in steps:
        first_index = max(2, len(model) + 1 - back)
        journal.commit([write(first_index, *entries)])
        model[first_index - 1 :] = entries
    assert reopened(journal, path).entries == model


CONFIGURATION = Configuration((Member(1, "node1"),))


def test_what_takes_the_place_of_a_tail_is_one_transaction_and_one_row_needs_none_around_it(tmp_path):
    """Between a tail that was deleted and what takes its place no crash may come."""
    journal = born(tmp_path)
    journal.commit([write(2, b"a", b"b", b"c")])
    said: list[str] = []
    journal._db.set_trace_callback(lambda statement: said.append(statement.split()[0]))
    journal.commit([write(5, b"d")])
    assert said == ["INSERT"]
    said.clear()
    journal.commit([write(4, b"e", b"f")])
    assert (said[0], said[-1]) == ("BEGIN", "COMMIT")
    assert {"DELETE", "INSERT"} <= set(said[1:-1])
    said.clear()
    journal.commit([write(6, b"g", term=3)])
    assert (said[0], said[-1]) == ("BEGIN", "COMMIT"), "the term is another row"


def head(last_index: int, offset: int, *, keep_tail: bool = True, size: int = 10) -> Head:
    return Head(Snapshot(last_index, 2, CONFIGURATION, secrets.token_bytes(size)), offset, 2, keep_tail)


def test_a_damaged_batch_that_is_cut_through_gets_no_new_checksum(tmp_path):
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01aaaa", b"\x01bbbb", b"\x01cccc")])
    body = journal._db.execute("SELECT body FROM batches WHERE first_index = 2").fetchone()[0]
    journal._db.execute("UPDATE batches SET body = ? WHERE first_index = 2", (body.replace(b"aaaa", b"aaXa"),))
    with pytest.raises(JournalFailed, match="entries 2 to 4 of replica 4000000000000001 do not match their checksum"):
        journal.commit([write(4, b"\x01d", term=3)])
    with pytest.raises(JournalDamaged, match="entries 2 to 4"):
        reopened(journal, tmp_path)


def test_a_snapshot_takes_the_place_of_the_log_up_to_its_offset(tmp_path):
    journal = born(tmp_path)
    journal.commit([write(2, *[b"\x01%d" % i for i in range(2, 8)])])
    journal.commit([write(8, b"\x018")])
    taken = head(6, 4, size=3 * 1024 * 1024 + 5)
    journal.commit([write(9, b"\x019", commit=6)._replace(head=taken)])
    stored = reopened(journal, tmp_path)
    assert stored.entries == [b"\x01%d" % i for i in range(5, 10)]
    assert (stored.offset, stored.offset_term, stored.snapshot) == (4, 2, taken.snapshot)


def test_whether_a_majority_had_the_state_of_a_snapshot_is_kept_with_it(tmp_path):
    journal = born(tmp_path)
    assert reopened(journal, tmp_path).agreed_index == 0
    journal = SqliteJournal(tmp_path)
    journal.load(REPLICA.replica)
    journal.commit([write(2, *[b"\x01%d" % i for i in range(2, 8)])])
    journal.commit([write(8, commit=4)._replace(head=head(4, 4)._replace(agreed=True))])
    stored = reopened(journal, tmp_path)
    assert (stored.agreed, stored.agreed_index) == (True, 4)
    journal = SqliteJournal(tmp_path)
    journal.load(REPLICA.replica)
    journal.commit([write(8, commit=6)._replace(head=head(6, 6))])
    assert reopened(journal, tmp_path).agreed_index == 0
    journal = SqliteJournal(tmp_path)
    journal._db.execute("INSERT INTO agreed VALUES (?, 6, x'00')", (REPLICA.replica,))
    with pytest.raises(JournalDamaged, match="agreed on is damaged"):
        reopened(journal, tmp_path)


def test_a_snapshot_from_the_leader_may_take_the_place_of_everything(tmp_path):
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", b"\x01b")])
    journal.commit([write(41, commit=40)._replace(head=head(40, 40, keep_tail=False))])
    journal.commit([write(41, b"\x01c", commit=40)])
    stored = reopened(journal, tmp_path)
    assert (stored.offset, stored.entries) == (40, [b"\x01c"])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE snapshots SET body = x'00' WHERE part = 0",
        "UPDATE snapshots SET body = zeroblob(length(body)) WHERE part = 0",
        "DELETE FROM snapshots",
        "UPDATE heads SET log_offset = 3",
    ],
)
def test_a_damaged_snapshot_is_named_and_not_served(tmp_path, statement):
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", b"\x01b", commit=3)._replace(head=head(2, 2))])
    journal.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute(statement)
        db.commit()
    with pytest.raises(JournalDamaged, match="the snapshot of replica"), closing(SqliteJournal(tmp_path)) as again:
        again.load(REPLICA.replica)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE batches SET body = x'9292cd03e792c40161' WHERE first_index = 2", "entries 2 to 3"),
        ("UPDATE batches SET last_index = 4 WHERE first_index = 2", "checksum"),
        ("UPDATE hard_states SET vote = 5", "hard state"),
        ("DELETE FROM hard_states", "hard state"),
        ("DELETE FROM batches WHERE first_index = 2", "lacks entries"),
        ("DELETE FROM batches WHERE first_index = 1", "follow index 0"),
        ("UPDATE meta SET value = '99' WHERE key = 'format'", "expected format"),
        (f"INSERT INTO stopped VALUES ({REPLICA.replica}, 'never mind', x'00')", "why replica"),
        ("UPDATE meta SET value = '12' WHERE key = 'node'", "row node of meta does not match"),
        ("UPDATE meta SET value = 1.5 WHERE key = 'node'", "row node of meta does not match"),
        ("DELETE FROM meta WHERE key = 'node'", "row node of meta is missing"),
        ("UPDATE replicas SET cluster = 8 WHERE replica = 4", "row 4 of replicas does not match"),
        ("UPDATE replicas SET cluster_name = 'thirc' WHERE replica = 4", "row 4 of replicas does not match"),
        ("UPDATE replicas SET replica = 6 WHERE replica = 4", "row 4 of replicas is missing"),
        ("DELETE FROM replicas WHERE replica = 4", "row 4 of replicas is missing"),
        ("UPDATE requests SET replica = 7 WHERE request = 'for e'", "row for e of requests does not match"),
        ("UPDATE requests SET request = 'for f' WHERE request = 'for e'", "row for e of requests is missing"),
        ("DELETE FROM requests WHERE request = 'for e'", "row for e of requests is missing"),
        ("UPDATE tombstones SET replica = replica + 1", "row 5 of tombstones is missing"),
        ("DELETE FROM tombstones", "row 5 of tombstones is missing"),
        ("UPDATE resting SET replica = 6", "resting has a row of replica"),
        ("UPDATE hard_states SET replica = 6 WHERE replica = 4", "hard_states has a row of replica"),
        ("UPDATE summed SET checksum = x'00' WHERE of = 'replicas'", "of replicas does not match"),
    ],
)
def test_a_damaged_row_is_named_and_not_served(tmp_path, statement, complaint):
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", b"\x01b", commit=3)])
    with_others(journal)
    journal.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute(statement)
        db.commit()
    with pytest.raises(JournalDamaged, match=complaint), closing(SqliteJournal(tmp_path)) as again:
        again.load(REPLICA.replica)


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_an_older_hard_state_that_has_come_back_is_named(tmp_path, with_snapshot):
    """As where the disk lost the write of one page. Its checksum is right, and what it has forgotten is a vote."""
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", term=1, commit=1)])
    older = journal._db.execute("SELECT * FROM hard_states").fetchone()
    later = write(3, b"\x01b", term=2, vote=5, commit=3)
    journal.commit([later._replace(head=head(3, 3)) if with_snapshot else later])
    journal._db.execute("REPLACE INTO hard_states VALUES (?, ?, ?, ?, ?)", older)
    with pytest.raises(JournalDamaged, match=r"hard state of replica .* is of term 1, and what it has of 2"):
        reopened(journal, tmp_path)


def test_a_log_that_ends_before_its_snapshot_is_named(tmp_path):
    """The commit index, which may lag, is not all that says how far it went."""
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", commit=1)])
    older = journal._db.execute("SELECT * FROM hard_states").fetchone()
    journal.commit([write(3, b"\x01b", commit=3)._replace(head=head(3, 1))])
    journal._db.execute("REPLACE INTO hard_states VALUES (?, ?, ?, ?, ?)", older)
    journal._db.execute("DELETE FROM batches WHERE first_index = 3")
    with pytest.raises(JournalDamaged, match="lacks entries up to its snapshot"):
        reopened(journal, tmp_path)


def test_a_journal_of_a_format_to_come_is_refused_and_stays_as_it_is(tmp_path):
    """What has rotted into another number is damage, which may be thrown away; this is not."""
    born(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
        sums.put(db, "meta", "format", "2")
        db.commit()
    with pytest.raises(JournalUnusable, match="expected format 1, got 2: another version of Conclave wrote it"):
        SqliteJournal(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == ("2",)


def test_batches_that_the_snapshot_covers_and_that_wait_to_be_swept_are_no_part_of_the_log(tmp_path):
    journal = born(tmp_path)
    for index in range(2, 201):
        journal.commit([write(index, b"\x01a")])
    journal.commit([write(201, b"\x01b")._replace(head=head(200, 200))])
    (left,) = journal._db.execute("SELECT count(*) FROM batches").fetchone()
    assert left > 1
    assert reopened(journal, tmp_path).entries == [b"\x01b"]


def test_an_epoch_that_has_rotted_lets_no_name_begin_in_an_old_one(tmp_path):
    """A token of an older epoch is below those that were given out (docs/design.md, rule 6)."""
    journal = born(tmp_path)
    journal.keep_epoch("second", 6)
    journal.keep_epoch("second", 2)
    for harm in ("SET epoch = 2", "SET epoch = 100000", "SET cluster_name = 'secone'", "SET epoch = 9"):
        journal._db.execute(f"UPDATE epochs {harm} WHERE cluster_name = 'second'")
        journal.close()
        journal = SqliteJournal(tmp_path)
        assert journal.epochs()["second"] == (9 if harm.endswith("9") else 6), harm
        journal._db.execute("INSERT OR REPLACE INTO epochs VALUES ('second', 6)")
    journal.keep_epoch("second", 7)
    journal.keep_epoch("third", EPOCH_MAX)
    journal.close()
    found = SqliteJournal(tmp_path).epochs()
    assert (found["second"], found["third"]) == (7, EPOCH_MAX)


@pytest.mark.parametrize("harm", ["epoch = 2", "cluster_name = 'secone'", "checksum = x'00'", "epoch = x'00'"])
def test_an_epoch_that_does_not_check_is_named(tmp_path, harm):
    journal = born(tmp_path)
    journal.keep_epoch("second", 6)
    journal._db.execute(f"UPDATE summed_epochs SET {harm} WHERE cluster_name = 'second'")
    with pytest.raises(JournalDamaged, match="the restore epoch of seco"):
        journal.epochs()


def test_an_epoch_that_is_no_number_any_more_is_damage(tmp_path):
    journal = born(tmp_path)
    journal.keep_epoch("second", 6)
    journal._db.execute("UPDATE epochs SET epoch = x'00'")
    with pytest.raises(JournalDamaged, match="not supported between"):
        journal.epochs()


def test_epochs_of_a_version_that_did_not_sum_them_are_summed(tmp_path):
    journal = born(tmp_path)
    journal.keep_epoch("second", 6)
    journal._db.execute("DROP TABLE summed_epochs")
    journal.close()
    journal = SqliteJournal(tmp_path)
    journal._db.execute("UPDATE epochs SET epoch = 1 WHERE cluster_name = 'second'")
    assert journal.epochs()["second"] == 6


@pytest.mark.parametrize("last_index", [0, 3, 4])
def test_a_batch_is_not_taken_for_one_that_the_snapshot_covers_by_an_index_that_has_rotted(tmp_path, last_index):
    """The commit index on disk may lag, so that nothing else would say that entries are missing."""
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a", b"\x01b", b"\x01c", commit=3)._replace(head=head(4, 4))])
    journal.commit([write(5, b"\x01d", b"\x01e", commit=3)])
    journal._db.execute("UPDATE batches SET last_index = ? WHERE first_index = 5", (last_index,))
    with pytest.raises(JournalDamaged, match=f"entries 5 to {last_index} .* do not match their checksum"):
        reopened(journal, tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, object]:
    """A journal of many pages, and what it holds."""
    path = tmp_path_factory.mktemp("filled")
    journal = born(path)
    with_others(journal)
    for index in range(2, 40):
        journal.commit([write(index, b"\x01" + bytes([index]) * (30, 300, 6_000)[index % 3], term=index)])
    journal.close()
    stored = everything(path)
    return (path / FILE_NAME).read_bytes(), stored


def everything(path) -> object:
    with closing(SqliteJournal(path)) as journal:
        return (
            journal.load(REPLICA.replica),
            journal.replicas(),
            journal.node_identity,
            set(journal.tombstones()),
            journal.resting(),
            journal.epochs(),
            [journal.replica_of_request(request) for request in ("for d", "for e")],
        )


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_bit_that_flips_in_the_file_is_named_or_changes_nothing(filled, tmp_path_factory, data):
    """Half of them in the heads of pages: a page that says it has fewer rows would hide them from their checksums."""
    content, stored = filled
    page = data.draw(st.integers(0, len(content) // 4_096 - 1))
    at = page * 4_096 + data.draw(st.one_of(st.integers(0, 100), st.integers(0, 4_095)))
    damaged = bytearray(content)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("rot")
    (path / FILE_NAME).write_bytes(damaged)
    try:
        found = everything(path)
    except JournalDamaged:
        return
    assert found == stored


def test_a_name_that_is_no_text_any_more_is_damage(filled, tmp_path):
    """SQLite quotes the name of what it can not read, and Python can not decode that."""
    content, _ = filled
    damaged = bytearray(content)
    damaged[content.index(b"agreedagreed")] ^= 0x80
    (tmp_path / FILE_NAME).write_bytes(damaged)
    with pytest.raises(JournalDamaged):
        SqliteJournal(tmp_path)


def test_a_replica_that_stopped_stays_stopped_over_a_restart(tmp_path):
    """Also where the same turn writes nothing else but entries, which are a row by themselves."""
    journal = born(tmp_path)
    journal.commit([write(2, b"\x01a")])
    journal.commit([write(3, b"\x01b")._replace(stopped="it differed")])
    journal.commit([write(4, b"\x01c")])
    stored = reopened(journal, tmp_path)
    assert (stored.stopped, stored.entries[1:]) == ("it differed", [b"\x01a", b"\x01b", b"\x01c"])


def test_a_journal_of_before_there_were_stopped_replicas_is_read(tmp_path):
    journal = born(tmp_path)
    journal._db.execute("DROP TABLE stopped")
    assert reopened(journal, tmp_path).stopped == ""


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"not a database, whatever its name says" * 50)
    with pytest.raises(JournalDamaged):
        SqliteJournal(tmp_path)


def test_a_failed_write_is_final(tmp_path):
    journal = born(tmp_path)
    another, empty = StoredReplica(4, 7, "third"), StoredLog(HardState(0, 0, 0), [], [])
    journal.admit(another, None, empty)
    journal._db.execute("PRAGMA query_only = 1")  # As a disk that takes no more writes.
    for change in (
        lambda: journal.commit([write(2, b"\x01a")]),
        lambda: journal.admit(StoredReplica(5, 8, "second"), None, empty),
        lambda: journal.form(another, 1, empty),
        lambda: journal.mark_resting(4, resting=True),
        lambda: journal.keep_epoch("second", 6),
        lambda: journal.retire(another, None, "no member"),
    ):
        with pytest.raises(JournalFailed):
            change()
        journal._db.rollback()  # What a process does that ends.


def test_a_nodes_directory_has_one_holder(tmp_path):
    held = NodeDirectory(tmp_path / "node1")
    with pytest.raises(DirectoryHeld, match="runs once"):
        NodeDirectory(tmp_path / "node1")
    held.release()
    NodeDirectory(tmp_path / "node1").release()


def test_a_new_directory_is_on_disk_under_its_name(tmp_path, monkeypatch):
    """Else a loss of power takes away all that was synced in it."""
    synced: list[object] = []
    monkeypatch.setattr(directory, "sync", synced.append)
    NodeDirectory(tmp_path / "nodes" / "node4").release()
    assert synced == [tmp_path, tmp_path / "nodes"]
    NodeDirectory(tmp_path / "nodes" / "node4").release()
    assert synced == [tmp_path, tmp_path / "nodes"]
    assert (tmp_path / "nodes" / "node4").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [FILE_NAME, f"{FILE_NAME}-wal"])
def test_a_journal_that_may_not_be_written_is_refused_by_name(tmp_path, monkeypatch, name):
    really_open = os.open

    def refused(path, flags, *arguments):
        if str(path) == str(tmp_path / name) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, flags, *arguments)

    with closing(born(tmp_path)):  # Open meanwhile, as of a node that was killed: to be collected would close it, too.
        left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert f"{FILE_NAME}-wal" in left
        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(PermissionError, match=name):
            SqliteJournal(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == left


def test_a_file_is_gone_whose_name_leads_to_it_no_more(tmp_path):
    paths = [tmp_path / "node1" / name for name in ("lock", "journal")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"")
    opened = OpenFiles(paths)
    assert opened.first_gone() is None
    paths[1].write_bytes(b"more")
    assert opened.first_gone() is None
    paths[1].rename(tmp_path / "elsewhere")
    assert opened.first_gone() == paths[1]
    paths[1].write_bytes(b"more")
    assert opened.first_gone() == paths[1]
    (tmp_path / "elsewhere").replace(paths[1])
    assert opened.first_gone() is None
    paths[0].parent.rename(tmp_path / "node2")
    assert opened.first_gone() == paths[0]
    paths[0].parent.write_bytes(b"")
    assert opened.first_gone() == paths[0]


def test_what_may_not_be_looked_at_is_not_gone(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    path.write_bytes(b"")
    opened = OpenFiles([path])

    def refused(path: object) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(os, "stat", refused)
    assert opened.first_gone() is None


def hosted(path) -> list[StoredReplica]:
    with closing(SqliteJournal(path)) as journal:
        return journal.replicas()


TOKEN = Token.new("0123abcd")


def test_births_give_every_node_the_same_log_and_an_identity_of_its_own(tmp_path):
    cluster = create(tmp_path / "nodes", ["node1", "node2"], "default", TOKEN)
    logs, replicas = [], []
    for node in ("node1", "node2"):
        journal = SqliteJournal(tmp_path / "nodes" / node)
        (stored,) = journal.replicas()
        assert (stored.cluster, stored.cluster_name) == (cluster, "default")
        assert journal.epochs() == {"default": 0}
        logs.append(journal.load(stored.replica))
        replicas.append(stored.replica)
    assert logs[0] == logs[1]
    assert logs[0].hard_state == HardState(1, 0, 2)
    assert len(set(replicas)) == 2


def test_nothing_is_born_where_nodes_are(tmp_path):
    create(tmp_path / "nodes", ["node1"], "default", TOKEN)
    before = hosted(tmp_path / "nodes" / "node1")
    with pytest.raises(AlreadyBorn):
        create(tmp_path / "nodes", ["node1"], "default", TOKEN)
    assert hosted(tmp_path / "nodes" / "node1") == before


@pytest.mark.interpreted
@pytest.mark.parametrize("statement", ["wal_checkpoint", "INSERT INTO replicas"])
def test_a_disk_that_is_full_at_a_birth_is_said_in_a_line(tmp_path, monkeypatch, capsys, statement):
    class Failing(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if statement in sql:
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *arguments)

    connect = partial(sqlite3.connect, factory=Failing)
    monkeypatch.setattr("coordinator.replica.journal.sqlite3", SimpleNamespace(**vars(sqlite3) | {"connect": connect}))
    nodes = tmp_path / "nodes"
    monkeypatch.setattr(
        sys, "argv", ["births", "--nodes-directory", f"{nodes}", "--nodes", "a", "--cluster", "default"]
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}"))
    assert births.main() == 1
    said = capsys.readouterr().err
    assert said == f"no cluster was made: {tmp_path / 'nodes.unborn' / 'a' / FILE_NAME}: database or disk is full\n"
    assert not nodes.exists()


def test_a_birth_that_was_killed_before_its_rename_leaves_nothing(tmp_path):
    half = tmp_path / "nodes.unborn" / "node1"
    half.mkdir(parents=True)
    (half / FILE_NAME).write_bytes(b"half")
    create(tmp_path / "nodes", ["node1"], "default", TOKEN)
    assert not (tmp_path / "nodes.unborn").exists()
    assert hosted(tmp_path / "nodes" / "node1")


@pytest.mark.parametrize("node", ["", "Node", "a/b", "../x", "_any"])
def test_a_node_name_that_is_none_is_refused(tmp_path, node):
    with pytest.raises(ValueError, match="name"):
        create(tmp_path / "nodes", [node], "default", TOKEN)
    assert not (tmp_path / "nodes").exists()
