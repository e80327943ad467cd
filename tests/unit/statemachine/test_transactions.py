"""Transactions: comparisons, branches, nesting, all or nothing."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands, files, snapshot
from coordinator.statemachine.commands import Aborted, DeleteKey, Done, GetKey, PutKey, Transact, Transacted
from coordinator.statemachine.files import (
    AddToKey,
    Compare,
    CreateFile,
    Deleted,
    DeletePath,
    DeleteRange,
    GetStat,
    MakeDirectory,
    Mismatch,
    ReadChanges,
    ReadFile,
    ReadRange,
    WriteFile,
)
from coordinator.statemachine.locks import fencing_token
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.test_namespace import Tree

SESSION = fencing_token(1, 2)
"""Opened by the second entry, in the epoch of `Asking`."""


def without_the_request(tree: Tree) -> bytes:
    """The state but for what every request leaves: its result, and the index."""
    tree.machine.sessions[tree.session].results.clear()
    tree.machine.state.applied = 0
    return snapshot.dump(tree.machine)


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare("a", "value", "=", b"m"), True),
        (Compare("a", "value", "<", b"z"), True),
        (Compare("a", "value", ">", b"z"), False),
        (Compare("a", "version", "=", 2), True),
        (Compare("a", "version", "!=", 2), False),
        (Compare("a", "instance", "<", 4), True),
        (Compare("a", "revision", ">", 3), True),
        (Compare("a", "lease", "=", 0), True),
        (Compare("none", "version", "=", 0), True),
        (Compare("none", "instance", "=", 0), True),
        (Compare("none", "value", "!=", b"m"), False),
        (Compare("none", "lock", "=", 0), True),
        (Compare("none", "lock-holder", "=", 0), True),
        (Compare("l", "lock-holder", "=", SESSION), True),
        (Compare("l", "lock", ">", 0), True),
        (Compare("e", "lease", "=", SESSION), True),
        (Compare("e", "lease", "=", SESSION + 1), False),
    ],
)
def test_comparisons(compare, holds):
    tree = Tree()
    assert tree.session == SESSION
    tree.do(PutKey("a", b""))
    tree.do(PutKey("a", b"m"))
    tree.acquire(tree.session, "l")
    tree.do(CreateFile("e", b"", ephemeral=True))
    done = tree.do(Transact((compare,), (PutKey("then", b""),), (PutKey("else", b""),)))
    assert done == Transacted(tree.index, holds, (Done(tree.index),))
    assert tree.query(GetKey("then" if holds else "else")).version == 1
    assert tree.query(GetKey("else" if holds else "then")).version == 0


@pytest.mark.parametrize("target", files.LEVEL_4_TARGETS)
def test_a_generation_of_a_stat_is_compared_and_is_0_where_nothing_is(target):
    tree = Tree()
    tree.do(PutKey("a", b""))
    tree.acquire(tree.session, "a")
    tree.acquire(tree.session, "none")
    stat = tree.query(GetStat("a"))
    number = getattr(stat, target.replace("-", "_"))
    assert number > 0
    for key, operand, holds in (("a", number, True), ("a", 0, False), ("none", 0, True), ("none", number, False)):
        assert tree.do(Transact((Compare(key, target, "=", operand),), ())).succeeded is holds
    tree.do(DeleteKey("a"))
    tree.do(PutKey("a", b""))
    stat = tree.query(GetStat("a"))
    assert tree.do(Transact((Compare("a", target, "=", getattr(stat, target.replace("-", "_"))),), ())).succeeded, (
        "of the file that is there now"
    )
    refused = tree.do(Transact((Compare("a", target, "=", b"1"),), ()))
    assert refused.code == commands.INVALID


@pytest.mark.parametrize("level", [2, 3])
def test_below_level_4_such_a_comparison_is_refused_and_nothing_of_it_is_kept(level):
    """A replica of that level can not even read it."""
    asking = Asking(level)
    session = asking.open()
    before = snapshot.dump(asking.machine)
    inner = Transact((Compare("a", "acl-generation", "=", 0),), ())
    refused = asking.send(session, 1, Transact((), (PutKey("b", b""), inner)), acked=1)
    assert refused.code == commands.INVALID
    assert "'acl-generation' is of level 4" in refused.message
    asking.machine.state.applied -= 1
    assert snapshot.dump(asking.machine) == before
    asking.machine.state.applied += 1
    assert isinstance(asking.send(session, 1, Transact((Compare("a", "lock", "=", 0),), ())), Transacted)


def test_all_of_it_is_one_revision_and_later_operations_see_earlier_ones():
    tree = Tree()
    done = tree.do(
        Transact(
            (),
            (
                PutKey("a", b"1"),
                Transact((Compare("a", "value", "=", b"1"),), (AddToKey("n", 3),), (AddToKey("n", 4),)),
                ReadRange("", prefix=True),
                ReadFile("a"),
                MakeDirectory("d"),
                CreateFile("d/x", b""),
            ),
        )
    )
    assert done.results[1].results == (files.Counted(3, tree.index, 1),)
    assert [view.key for view in done.results[2].keys] == ["a", "n"]
    assert done.results[3].value == b"1"
    changes = tree.query(ReadChanges("", prefix=True, since=1)).changes
    assert [(change.revision, change.key) for change in changes] == [
        (tree.index, key) for key in ("a", "n", "d", "d/x")
    ]


@pytest.mark.parametrize(
    ("refused", "refusal"),
    [
        (CreateFile("a", b""), commands.EXISTS),
        (DeletePath("none"), commands.NOT_FOUND),
        (WriteFile("a", b"", generation=7), None),
        (PutKey("b", b"again"), commands.INVALID),
        (DeleteRange("b", prefix=True), commands.INVALID),
        (PutKey("d", b""), commands.WRONG_KIND),
        (ReadFile("none"), commands.NOT_FOUND),
        (Transact((), (DeleteKey("gone"), PutKey("gone", b""))), commands.INVALID),
    ],
)
def test_a_refusal_undoes_everything(refused, refusal):
    tree = Tree()
    for op in (
        PutKey("a", b"1"),
        MakeDirectory("d"),
        CreateFile("e/f", b"2", ephemeral=True, parents=True),
        PutKey("gone", b""),
        PutKey("x/y/z", b""),
    ):
        tree.do(op)
    tree.acquire(tree.session, "x/y/z")
    tree.release(tree.session, "x/y/z")
    tree.acquire(tree.session, "a")
    index = tree.index
    expected = without_the_request(tree)
    files_before = {*tree.machine.sessions[tree.session].files}
    children = dict(tree.machine.state.children)
    tree.machine.state.applied = index
    done = tree.do(
        Transact(
            (),
            (
                PutKey("b", b"1"),
                DeletePath("e", recursive=True),
                CreateFile("new/one", b"", ephemeral=True, parents=True),
                DeleteKey("x/y/z"),
                refused,
            ),
        )
    )
    assert isinstance(done, Aborted)
    assert done.place == ((4, 1) if isinstance(refused, Transact) else (4,))
    if refusal is None:
        assert isinstance(done.refusal, Mismatch)
    else:
        assert done.refusal.code == refusal
    assert without_the_request(tree) == expected
    assert tree.machine.sessions[tree.session].files == files_before
    assert tree.machine.state.children == children
    assert [*tree.machine.state.history.gone] == []


def test_what_was_undone_leaves_no_history():
    tree = Tree()
    tree.do(PutKey("a", b"1"))
    tree.do(DeleteKey("a"))
    tree.do(Transact((), (PutKey("a", b"2"), CreateFile("a", b""))))
    assert [change.revision for change in tree.query(ReadChanges("a", since=1)).changes] == [
        tree.index - 2,
        tree.index - 1,
    ]
    assert tree.query(ReadRange("", prefix=True, revision=tree.index - 2)).count == 1
    assert tree.do(Transact((), (DeleteRange("", prefix=True), PutKey("b", b"")))) == Transacted(
        tree.index, True, (Deleted(tree.index, 0), Done(tree.index))
    )


def test_a_dump_under_way_does_not_see_a_transaction_that_was_undone():
    tree = Tree()
    for number in range(400):
        tree.do(PutKey(f"k{number:03}", b"v"))
    expected = snapshot.dump(tree.machine)
    dump = snapshot.begin(tree.machine)
    parts = [dump.slice(1)]
    for number in range(0, 400, 7):
        ops = (DeleteKey(f"k{number:03}"), PutKey(f"n{number}", b""), PutKey("k399", b"2"), CreateFile("k398", b""))
        assert isinstance(tree.do(Transact((), ops)), Aborted)
        parts.append(dump.slice(1))
    while not dump.done:
        parts.append(dump.slice(1))
    assert b"".join(parts) == expected


def test_rights_of_both_branches_are_checked_before_anything_is_done():
    tree = Tree()
    narrow = tree.open("narrow")
    for op in (
        Transact((), (PutKey("build/x", b""),), (PutKey("other", b""),)),
        Transact((Compare("other", "version", "=", 0),), ()),
        Transact((), (Transact((), (), (ReadFile("other"),)),)),
    ):
        assert tree.ask(narrow, op, "narrow").code == commands.FORBIDDEN
    assert tree.query(GetKey("build/x")).version == 0


def _nested(depth):
    return Transact((), (_nested(depth - 1),)) if depth > 1 else Transact((), ())


@pytest.mark.parametrize(
    ("op", "number"),
    [
        (_nested(5), "at most 4"),
        (Transact((), (PutKey("a", b""),) * 65, (PutKey("a", b""),) * 64), "128 operations"),
        (Transact((Compare("a", "version", "=", 0),) * 129, ()), "128 comparisons"),
        (Transact((Compare("a", "version", "=", b"x"),), ()), "with a number"),
        (Transact((Compare("a", "value", "=", 1),), ()), "with bytes"),
    ],
)
def test_bounds_are_refused_with_their_numbers(op, number):
    refused = Tree().do(op)
    assert isinstance(refused, commands.Failure)
    assert number in refused.message


def test_a_transaction_reads_no_more_than_its_result_may_hold():
    tree = Tree()
    tree.do(PutKey("large", bytes(40_000)))
    assert isinstance(tree.do(Transact((), (ReadFile("large"),))), Transacted)
    aborted = tree.do(Transact((), (PutKey("a", b""), ReadFile("large"), ReadRange("large"))))
    assert (aborted.place, aborted.refusal.code) == ((2,), commands.TOO_MANY)
    assert tree.query(GetKey("a")).version == 0
