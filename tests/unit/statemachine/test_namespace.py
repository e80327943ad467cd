"""Files, directories and flat keys: what each command does, its limits, and the past that can still be read."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.statemachine import commands, files, namespace, paths
from coordinator.statemachine.commands import (
    Aborted,
    DeleteKey,
    Done,
    ExpireSessions,
    GetKey,
    KeyValue,
    PutKey,
    Transact,
)
from coordinator.statemachine.files import (
    AddToKey,
    AttachFile,
    Compact,
    Compacted,
    Created,
    CreateFile,
    Deleted,
    DeletePath,
    DeleteRange,
    DetachFile,
    GetStat,
    ListDirectory,
    MakeDirectory,
    Mismatch,
    ReadChanges,
    ReadDirectory,
    ReadFile,
    ReadRange,
    ReadStat,
    WriteFile,
)
from coordinator.statemachine.reading import checksum
from tests.unit.statemachine.asking import Asking


class Tree(Asking):
    """One session that asks."""

    def __init__(self, level: int = commands.LEVEL) -> None:
        super().__init__(level)
        self.session = self.open()

    def do(self, op, principal="ci"):
        return self.ask(self.session, op, principal)

    def names(self, **query):
        return [view.key for view in self.query(ReadRange(**query)).keys]

    def listed(self, path, **query):
        return [child.name for child in self.query(ListDirectory(path, **query)).children]


# --- the tree -------------------------------------------------------------------------------------


def test_a_file_is_created_once_and_in_a_directory_that_is_there():
    tree = Tree()
    assert tree.do(CreateFile("a/b", b"1")).code == commands.NOT_FOUND
    assert tree.do(CreateFile("a/b", b"1", parents=True)) == Created("a/b", tree.index)
    assert tree.do(CreateFile("a/b", b"2")).code == commands.EXISTS
    assert tree.do(CreateFile("a", b"2")).code == commands.EXISTS
    assert tree.do(CreateFile("a/b/c", b"2", parents=True)).code == commands.WRONG_KIND
    assert tree.query(GetStat("a")).directory


def test_the_stat_of_a_file():
    tree = Tree()
    tree.do(CreateFile("a", b"one"))
    created = tree.index
    tree.do(WriteFile("a", b"two!"))
    stat = tree.query(GetStat("a"))
    assert (stat.instance, stat.revision, stat.version, stat.size) == (created, tree.index, 2, 4)
    assert stat.checksum == checksum(b"two!") < 2**64
    assert (stat.ephemeral, stat.sessions, stat.lock_generation) == (False, (), 0)
    token = tree.acquire(tree.session, "a").token
    assert tree.query(GetStat("a")).lock_generation == token
    tree.release(tree.session, "a")
    assert tree.query(GetStat("a")).lock_generation == token
    tree.do(DeletePath("a"))
    tree.do(CreateFile("a", b""))
    again = tree.query(GetStat("a"))
    assert again.instance > stat.instance
    assert (again.version, again.lock_generation) == (1, 0)


def test_compare_and_set_by_generation_and_instance():
    tree = Tree()
    created = tree.do(CreateFile("a", b"1")).revision
    assert tree.do(WriteFile("a", b"2", generation=1)) == Done(tree.index, existed=True)
    assert tree.do(WriteFile("a", b"3", generation=1)) == Mismatch(tree.index - 1, 2, created)
    assert tree.do(WriteFile("a", b"3", instance=created + 1)) == Mismatch(tree.index - 2, 2, created)
    assert tree.do(DeletePath("a", generation=1)) == Mismatch(tree.index - 3, 2, created)
    assert tree.do(WriteFile("b", b"")).code == commands.NOT_FOUND
    assert tree.query(GetKey("a")).value == b"2"
    assert tree.do(DeletePath("a", generation=2, instance=created)) == Deleted(tree.index, 1)


def test_a_directory_goes_when_it_is_empty_or_with_all_that_is_in_it():
    tree = Tree()
    tree.do(MakeDirectory("d"))
    tree.do(CreateFile("d/a", b""))
    tree.do(CreateFile("d/e/f", b"", parents=True))
    tree.do(PutKey("d-x", b""))
    assert tree.do(DeletePath("d")).code == commands.NOT_EMPTY
    assert tree.do(DeletePath("d", recursive=True)) == Deleted(tree.index, 4)
    assert tree.names(start="", prefix=True) == ["d-x"]
    assert tree.do(DeletePath("d")).code == commands.NOT_FOUND
    tree.do(MakeDirectory("d"))
    assert tree.do(DeletePath("d")) == Deleted(tree.index, 1)


@pytest.mark.interpreted
def test_what_deletes_more_than_one_command_may_is_refused_with_its_number(monkeypatch):
    monkeypatch.setattr(files, "DELETED_MAX", 3)
    tree = Tree()
    for number in range(4):
        tree.do(PutKey(f"d/{number}", b""))
    for op in (DeletePath("d", recursive=True), DeleteRange("d/", prefix=True)):
        refused = tree.do(op)
        assert refused.code == commands.TOO_MANY
        assert "3" in refused.message
        assert "4" in refused.message
    tree.do(DeleteKey("d/0"))
    assert tree.do(DeletePath("d", recursive=True)).count == 3


def test_an_implied_directory_is_there_as_long_as_something_is_in_it():
    tree = Tree()
    tree.do(PutKey("a/b/c", b""))
    assert tree.query(GetStat("a/b")) == files.Stat("a/b", directory=True, children=1, acl_generation=1)
    assert tree.listed("") == ["a"]
    assert tree.do(CreateFile("a/b/d", b"")) == Created("a/b/d", tree.index)
    tree.do(DeleteKey("a/b/c"))
    assert tree.listed("a/b") == ["d"]
    tree.do(DeleteKey("a/b/d"))
    assert tree.query(GetStat("a")).code == commands.NOT_FOUND
    assert tree.machine.state.children == {}


def test_a_directory_that_was_made_stays_and_is_no_flat_key():
    tree = Tree()
    tree.do(MakeDirectory("d"))
    assert tree.query(GetKey("d")) == KeyValue(None)
    for op in (PutKey("d", b""), DeleteKey("d"), AddToKey("d", 1), WriteFile("d", b"")):
        assert tree.do(op).code == commands.WRONG_KIND
    assert tree.do(MakeDirectory("d")).code == commands.EXISTS
    assert tree.do(MakeDirectory("d", parents=True)) == Created("d", tree.index - 6)
    assert tree.query(ReadFile("d")).code == commands.WRONG_KIND


def test_flat_keys_take_no_notice_of_the_tree():
    """As they did before there was one."""
    tree = Tree()
    for key in ("a", "a/b", "a//b", "a/", "b/c/d"):
        assert tree.do(PutKey(key, b"x")) == Done(tree.index, existed=False)
    assert tree.names(start="", prefix=True) == ["a", "a/", "a//b", "a/b", "b/c/d"]
    assert tree.listed("a") == ["", "b"]
    assert tree.do(CreateFile("a/c", b"")).code == commands.WRONG_KIND
    for key in ("a/", "a", "a/b", "b/c/d", "a//b"):
        assert tree.do(DeleteKey(key)) == Done(tree.index, existed=True)
    assert tree.machine.state.children == {}
    assert tree.machine.key_bytes == 0


def test_sequential_names_only_ever_grow():
    tree = Tree()
    tree.do(MakeDirectory("q"))
    names = [tree.do(CreateFile("q/", b"", sequential=True)).path for _ in range(3)]
    tree.do(DeletePath("q", recursive=True))
    names += [tree.do(CreateFile("q/", b"", sequential=True, parents=True)).path for _ in range(2)]
    tree.machine.state.epoch += 1
    names.append(tree.do(CreateFile("q/", b"", sequential=True)).path)
    assert names == sorted({*names})
    assert {len(name) for name in names} == {2 + 19}


@pytest.mark.parametrize("deleted", [0, 1_100])
def test_sequential_names_of_one_transaction_grow_whatever_it_changed_before(deleted):
    """They would come again behind 999 changes, and the last of them be the first of the next entry."""
    tree = Tree()
    for number in range(deleted):
        tree.do(PutKey(f"old/{number}", b""))
    tree.do(MakeDirectory("q"))
    create = CreateFile("q/", b"", sequential=True)
    result = tree.do(commands.Transact((), (DeleteRange("old/", prefix=True), *(create for _ in range(120)))))
    names = [created.path for created in result.results[1:]]
    names.append(tree.do(create).path)
    assert names == sorted({*names})
    assert len(names) == 121


def test_a_directory_is_listed_in_pages_by_name_and_each_child_once():
    tree = Tree()
    for key in ("d/b", "d/b-c", "d/b/x", "d/a/1", "d/a/2", "e", "d/c"):
        tree.do(PutKey(key, b"v"))
    page = tree.query(ListDirectory("d", limit=2))
    assert [(child.name, child.directory, child.children) for child in page.children] == [
        ("a", True, 2),
        ("b", False, 1),
    ]
    assert (page.count, page.more) == (4, True)
    assert tree.listed("d", after="b") == ["b-c", "c"]
    assert tree.listed("") == ["d", "e"]
    assert tree.query(ListDirectory("e")).code == commands.WRONG_KIND
    assert tree.query(ListDirectory("x")).code == commands.NOT_FOUND


@pytest.mark.parametrize("path", ["a/", "a//b", "/".join("a" * 65), "x" * 513, "", "/a", "a\nb"])
def test_paths_that_are_none_are_refused(path):
    tree = Tree()
    assert tree.do(CreateFile(path, b"", parents=True)).code == commands.INVALID
    assert tree.do(MakeDirectory(path, parents=True)).code == commands.INVALID


@pytest.mark.interpreted
def test_each_limit_is_refused_with_its_number(monkeypatch):
    monkeypatch.setattr(files, "CHILDREN_MAX", 2)
    monkeypatch.setattr(namespace, "KEYS_MAX", 6)
    tree = Tree()
    tree.do(MakeDirectory("d"))
    assert "1048576" in tree.do(CreateFile("d/x", bytes(1_048_577))).message
    tree.do(CreateFile("d/a", b""))
    tree.do(CreateFile("d/b", b""))
    assert "its 2 children" in tree.do(CreateFile("d/c", b"")).message
    deep = tree.do(CreateFile("e/f/g/h", b"", parents=True))
    assert "its 6 keys" in deep.message
    assert tree.query(GetStat("e")).code == commands.NOT_FOUND, "nothing is made where not all can be"
    assert "at most 64 components" in tree.do(MakeDirectory("/".join("a" * 65))).message


# --- ephemeral files ------------------------------------------------------------------------------


def test_an_ephemeral_file_goes_with_its_last_session():
    tree = Tree()
    other = tree.open()
    tree.do(CreateFile("e", b"", ephemeral=True))
    tree.ask(other, AttachFile("e"))
    assert tree.query(GetStat("e")).sessions == (tree.session, other)
    tree.node(ExpireSessions((tree.session,)))
    assert tree.query(GetStat("e")).sessions == (other,)
    tree.node(ExpireSessions((other,)))
    assert tree.query(GetStat("e")).code == commands.NOT_FOUND
    assert tree.machine.state.ephemerals.rows == {}


def test_an_ephemeral_file_goes_when_the_last_detaches_or_anybody_deletes_it():
    tree = Tree()
    tree.do(CreateFile("e", b"", ephemeral=True))
    tree.do(PutKey("e", b"2"))
    assert tree.query(GetStat("e")).ephemeral
    assert tree.do(DetachFile("e")) == Done(tree.index, existed=True)
    assert tree.query(GetKey("e")) == KeyValue(None)
    assert tree.do(DetachFile("e")) == Done(tree.index, existed=False)
    tree.do(CreateFile("e", b"", ephemeral=True))
    tree.do(DeleteKey("e"))
    assert tree.machine.sessions[tree.session].files == set()
    tree.do(PutKey("p", b""))
    assert tree.do(AttachFile("p")).code == commands.WRONG_KIND
    assert tree.do(AttachFile("x")).code == commands.NOT_FOUND


def test_several_sessions_that_end_at_once_take_what_they_share_with_them():
    tree = Tree()
    other = tree.open()
    tree.do(CreateFile("e", b"", ephemeral=True))
    tree.ask(other, AttachFile("e"))
    tree.node(ExpireSessions((other, tree.session)))
    assert tree.query(GetStat("e")).code == commands.NOT_FOUND
    page = tree.query(ReadChanges("e", since=1))
    assert [change.revision for change in page.changes] == [tree.index - 2, tree.index]


# --- counters -------------------------------------------------------------------------------------


def test_a_counter_is_added_to():
    tree = Tree()
    assert tree.do(AddToKey("n", 5)) == files.Counted(5, tree.index, 1)
    assert tree.do(AddToKey("n", -7)) == files.Counted(-2, tree.index, 2)
    assert tree.query(GetKey("n")).value == b"-2"
    assert tree.do(AddToKey("n", 2**63 - 1)).value == 2**63 - 3
    assert tree.do(AddToKey("n", 3)).code == commands.INVALID
    tree.do(PutKey("n", b"many"))
    assert tree.do(AddToKey("n", 1)).code == commands.WRONG_KIND


# --- the past -------------------------------------------------------------------------------------


def test_any_retained_revision_can_be_read():
    tree = Tree()
    for value in (b"1", b"2"):
        tree.do(PutKey("a", value))
    second = tree.index
    tree.do(DeleteKey("a"))
    tree.do(PutKey("b", b"x"))
    tree.do(PutKey("a", b"3"))
    assert tree.query(ReadFile("a", revision=second - 1)).value == b"1"
    assert tree.query(ReadFile("a", revision=second)).value == b"2"
    assert tree.query(ReadFile("a", revision=second + 1)).code == commands.NOT_FOUND
    assert tree.query(ReadFile("a")).value == b"3"
    then = tree.query(ReadRange("", prefix=True, revision=second))
    assert [(view.key, view.value, view.version) for view in then.keys] == [("a", b"2", 2)]
    assert (then.count, then.revision) == (1, second)
    assert tree.names(start="", prefix=True, revision=second + 2) == ["b"]
    assert tree.query(ReadFile("a", revision=tree.index + 1)).code == commands.INVALID


def test_a_compacted_revision_is_refused_with_the_oldest_that_is_left():
    tree = Tree()
    web = tree.open("web")
    for value in range(20):
        tree.do(PutKey("a", b"%d" % value))
    keep = tree.index - 5
    assert tree.do(Compact(keep)).code == commands.FORBIDDEN
    tree.ask(web, Compact(keep), "web")
    assert tree.query(ReadFile("a", revision=keep - 1)) == Compacted(keep)
    assert tree.query(ReadFile("a", revision=keep)).value == b"14"
    assert tree.query(ReadChanges("a", since=keep)) == Compacted(keep)
    assert tree.query(ReadChanges("a", since=keep + 1)).changes[0].after.value == b"15"
    assert tree.ask(web, Compact(keep - 1), "web") == Compacted(keep)
    for value in range(20):
        tree.do(PutKey("b", b"%d" % value))
    kept = tree.machine.state.history.rows
    assert min(change.revision for change in kept.values()) == keep + 1, "its memory is given back"


def test_directories_and_stats_are_read_as_they_were():
    tree = Tree()
    tree.do(MakeDirectory("d"))
    empty = tree.index
    tree.do(CreateFile("d/x/1", b"one", parents=True))
    tree.do(PutKey("d/y/2", b""))
    full = tree.index
    tree.do(DeletePath("d/x", recursive=True))
    tree.do(DeleteKey("d/y/2"))
    tree.do(PutKey("d/z", b""))
    tree.do(PutKey("d/z/below", b""))

    def listed(path, revision, **query):
        page = tree.query(ReadDirectory(path, revision, **query))
        assert page.revision == (revision or tree.index)
        return page.count, [(child.name, child.directory, child.children) for child in page.children]

    assert listed("d", empty) == (0, [])
    assert listed("d", full) == (2, [("x", True, 1), ("y", True, 1)])
    assert listed("d", full, limit=1) == (2, [("x", True, 1)])
    assert listed("d", full, after="x") == (2, [("y", True, 1)])
    assert listed("d/y", full) == (1, [("2", False, 0)])
    assert listed("", empty) == (1, [("d", True, 0)])
    assert listed("", empty - 1) == (0, [])
    assert listed("d", 0) == listed("d", tree.index) == (1, [("z", False, 1)])
    stat = tree.query(ReadStat("d/x/1", full))
    assert (stat.size, stat.checksum, stat.version) == (3, checksum(b"one"), 1)
    implied = tree.query(ReadStat("d/y", full))
    assert implied == files.Stat("d/y", directory=True, children=1, acl_generation=1)
    assert tree.query(ReadStat("d", empty)).children == 0
    assert tree.query(ReadStat("d", full)).children == 2
    assert tree.query(ReadStat("d")) == tree.query(GetStat("d"))
    refused = tree.query(ReadStat("d/x", empty))
    assert (refused.code, refused.message) == (commands.NOT_FOUND, f"there is no 'd/x' at revision {empty}")
    assert tree.query(ReadDirectory("d/y", empty)).code == commands.NOT_FOUND
    assert tree.query(ReadDirectory("d/x/1", full)).code == commands.WRONG_KIND


def test_directories_and_stats_of_what_is_given_up_are_refused_with_the_oldest_that_is_left():
    tree = Tree()
    for value in range(5):
        tree.do(PutKey("d/a", b"%d" % value))
    keep = tree.index - 1
    tree.ask(tree.open("web"), Compact(keep), "web")
    for query in (ReadStat("d/a", keep - 1), ReadDirectory("d", keep - 1)):
        assert tree.query(query) == Compacted(keep)
    assert tree.query(ReadStat("d/a", keep)).version == 4
    assert tree.query(ReadDirectory("d", keep)).count == 1
    for query in (ReadStat("d/a", tree.index + 1), ReadDirectory("d", -1)):
        assert tree.query(query).code == commands.INVALID


def test_ranges_have_an_order_a_limit_a_count_and_pages():
    tree = Tree()
    for key in ("a", "a/b", "a-b", "b", "c"):
        tree.do(PutKey(key, key.encode()))
    assert tree.names(start="", prefix=True) == ["a", "a/b", "a-b", "b", "c"]
    assert tree.names(start="", prefix=True, descending=True) == ["c", "b", "a-b", "a/b", "a"]
    assert tree.names(start="a", prefix=True) == ["a", "a/b", "a-b"]
    assert tree.names(start="a/b", end="c") == ["a/b", "a-b", "b"]
    assert tree.names(start="b") == ["b"]
    assert tree.names(start="c", end="a") == []
    page = tree.query(ReadRange("", prefix=True, limit=2))
    assert ([view.key for view in page.keys], page.count, page.more) == (["a", "a/b"], 5, True)
    for descending in (False, True):
        query: dict[str, Any] = {"start": "a", "prefix": True, "descending": descending}
        whole = tree.names(**query)
        paged: list[str] = []
        while True:
            page = tree.query(ReadRange(**query, limit=1, after=paged[-1] if paged else ""))
            assert page.count == 3
            if not page.keys:
                break
            paged.append(page.keys[0].key)
        assert paged == whole
    assert tree.query(ReadRange("", prefix=True, sort_by="value", after="a")).code == commands.INVALID
    tree.do(PutKey("a", b"zz"))
    assert tree.names(start="", prefix=True, sort_by="value", descending=True)[0] == "a"
    assert tree.names(start="", prefix=True, sort_by="version")[-1] == "a"
    assert tree.names(start="", prefix=True, sort_by="revision")[0] == "a/b"
    assert tree.names(start="", prefix=True, sort_by="instance")[0] == "a"
    counted = tree.query(ReadRange("a", prefix=True, count_only=True))
    assert (counted.keys, counted.count) == ((), 3)
    assert all(view.value is None for view in tree.query(ReadRange("", prefix=True, keys_only=True)).keys)


@pytest.mark.interpreted
def test_a_page_has_a_bound_of_bytes_and_a_sort_one_of_keys(monkeypatch):
    monkeypatch.setattr(files, "PAGE_BYTES_MAX", 100)
    monkeypatch.setattr(files, "SORTED_MAX", 3)
    tree = Tree()
    for key in "abcd":
        tree.do(PutKey(key, bytes(60)))
    page = tree.query(ReadRange("", prefix=True))
    assert ([view.key for view in page.keys], page.more) == (["a"], True)
    assert tree.names(start="", prefix=True, keys_only=True) == [*"abcd"]
    refused = tree.query(ReadRange("", prefix=True, sort_by="value"))
    assert (refused.code, "at most 3" in refused.message) == (commands.TOO_MANY, True)
    changes = tree.query(ReadChanges("", prefix=True, since=1))
    assert len(changes.changes) == 1


def test_changes_are_told_in_order_and_each_once_however_they_are_paged():
    tree = Tree()
    for step in range(30):
        tree.do(PutKey(f"k{step % 4}", b"%d" % step) if step % 5 else DeleteKey(f"k{step % 4}"))
    tree.do(DeleteRange("k", prefix=True))
    whole = tree.query(ReadChanges("k", prefix=True, since=1, previous=True)).changes
    for limit in (1, 2, 3, 7):
        told, since, skip = [], 1, 0
        while True:
            page = tree.query(ReadChanges("k", prefix=True, since=since, skip=skip, limit=limit, previous=True))
            told += page.changes
            if not page.changes:
                break
            since, skip = page.since, page.skip
        assert tuple(told) == whole
        assert (page.since, page.skip) == (tree.index + 1, 0)
    before: dict[str, object] = {}
    for change in whole:
        assert change.before == before.get(change.key)
        before[change.key] = change.after
    only = tree.query(ReadChanges("k", prefix=True, since=1, puts=False)).changes
    assert only == tuple(
        files.ChangeView(change.revision, change.key, None) for change in whole if change.after is None
    )
    assert tree.query(ReadChanges("k", prefix=True)).changes == ()


@pytest.mark.interpreted
def test_a_page_of_changes_that_nobody_asked_for_is_a_progress_mark(monkeypatch):
    monkeypatch.setattr(files, "SCANNED_MAX", 5)
    tree = Tree()
    for _ in range(12):
        tree.do(PutKey("other", b""))
    first = tree.index - 11
    page = tree.query(ReadChanges("mine", since=first))
    assert (page.changes, page.since, page.skip) == ((), first + 4, 1)
    page = tree.query(ReadChanges("mine", since=page.since, skip=page.skip))
    page = tree.query(ReadChanges("mine", since=page.since, skip=page.skip))
    assert (page.changes, page.since, page.skip) == ((), tree.index + 1, 0)


# --- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "may"),
    [
        (ReadRange("build/", prefix=True), True),
        (ReadRange("build/a"), True),
        (ReadRange("build/a", "build/z"), True),
        (ReadRange("build", prefix=True), False),
        (ReadRange("build/a", "z"), False),
        (ReadRange("", prefix=True), False),
        (ReadChanges("build/", prefix=True, since=1), True),
        (ReadChanges("", prefix=True, since=1), False),
        (ListDirectory("build"), True),
        (ListDirectory(""), False),
        (ReadDirectory("build", 1), True),
        (ReadDirectory("builds", 1), False),
        (GetStat("build/x"), True),
        (ReadStat("build/x", 1), True),
        (ReadStat("x", 1), False),
        (ReadFile("other"), False),
    ],
)
def test_reads_reach_no_further_than_the_prefixes(query, may):
    tree = Tree()
    tree.do(PutKey("build/x", b""))
    tree.do(PutKey("other", b""))
    answer = tree.query(query, "narrow")
    assert (getattr(answer, "code", "") != commands.FORBIDDEN) == may


@pytest.mark.parametrize(
    ("op", "may"),
    [
        (CreateFile("build/y", b""), True),
        (CreateFile("builds", b""), False),
        (DeleteRange("build/", prefix=True), True),
        (DeleteRange("build", prefix=True), False),
        (DeletePath("build/x"), True),
        (DeletePath("build", recursive=True), False),
        (AddToKey("n", 1), False),
    ],
)
def test_writes_reach_no_further_than_the_prefixes(op, may):
    tree = Tree()
    tree.do(PutKey("build/x", b""))
    answer = tree.ask(tree.open("narrow"), op, "narrow")
    assert (getattr(answer, "code", "") != commands.FORBIDDEN) == may


def test_the_acl_generation_grows_with_every_change_of_rights():
    tree = Tree()
    web = tree.open("web")
    tree.do(PutKey("a", b""))
    before = tree.query(GetStat("a")).acl_generation
    tree.ask(web, commands.SetPrincipal("ci", ("read", "write")), "web")
    assert tree.query(GetStat("a")).acl_generation == tree.index > before
    tree.do(PutKey("a", b"2"))
    assert tree.query(GetStat("a")).acl_generation == tree.index - 1
    tree.ask(web, commands.RemovePrincipal("narrow"), "web")
    assert tree.query(GetStat("a")).acl_generation == tree.index


def test_spans():
    assert paths.prefixed("a").within("a")
    assert not paths.prefixed("a").within("a/")
    assert paths.span_of("a/b", "", prefix=False).within("a/")
    assert not paths.prefixed("").within("a")
    assert paths.prefixed("").within("")
    high = "a\U0010ffff"
    assert paths.prefixed(high).end == "b"
    assert paths.prefixed("\U0010ffff").end is None
    assert paths.prefixed(high).holds(high + "x")
    assert not paths.prefixed(high).holds("b")


@pytest.mark.interpreted
def test_the_directories_that_flat_keys_imply_have_a_bound(monkeypatch):
    """Each takes memory on every replica, and a key of 512 bytes implies 255."""
    monkeypatch.setattr(namespace, "DIRECTORIES_MAX", 4)
    tree = Tree()
    tree.do(PutKey("a/b/c/d", b""))
    for op in (PutKey("e/f", b""), AddToKey("a/b/c/d/e", 1), Transact((), (PutKey("e/f", b""),))):
        refused = tree.do(op)
        refused = refused.refusal if isinstance(refused, Aborted) else refused
        assert (refused.code, "4 directories" in refused.message) == (commands.FULL, True)
    for taken in (PutKey("e", b""), PutKey("a/b/e", b""), PutKey("a/b/c/d", b"again"), CreateFile("a/f", b"")):
        assert isinstance(tree.do(taken), Done | Created)
    tree.do(DeleteKey("a/b/c/d"))
    assert isinstance(tree.do(PutKey("e/f", b"")), Done)


@pytest.mark.interpreted
def test_below_level_6_directories_have_no_bound(monkeypatch):
    """Replicas of an earlier program know of none."""
    monkeypatch.setattr(namespace, "DIRECTORIES_MAX", 1)
    tree = Tree(level=5)
    assert all(isinstance(tree.do(PutKey(f"{each}/b/c", b"")), Done) for each in "abc")
