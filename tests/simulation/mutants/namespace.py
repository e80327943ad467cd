"""Files, revisions, transactions, watches and counters broken."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_NAMESPACE: Final = "coordinator.statemachine.namespace"
_READING: Final = "coordinator.statemachine.reading"
_PAST: Final = "coordinator.statemachine.past"
_HISTORY: Final = "coordinator.statemachine.history:History"
_TRANSACTIONS: Final = "coordinator.statemachine.transactions"
_SESSIONS: Final = "coordinator.statemachine.sessions"
_LOADER: Final = "coordinator.statemachine.snapshot:Loader"

MUTANTS: Final = (
    # --- revisions
    Mutant(
        "a-generation-that-is-not-compared",
        ("transactions",),
        "Revisions: a write by generation is done where nobody has written since",
        (Edit(f"{_NAMESPACE}:_mismatch", "(ANY_GENERATION, known.version)", "(generation,)"),),
    ),
    Mutant(
        "a-recursive-delete-that-leaves-something",
        ("revisions",),
        "Revisions: a recursive delete leaves nothing below",
        (Edit(f"{_NAMESPACE}:_delete_span", "seek(span.start), count)", "seek(span.start), max(0, count - 1))"),),
    ),
    Mutant(
        "the-revision-after-the-one-asked-for",
        ("revisions",),
        "Revisions: a read at a revision gives what was there then",
        (Edit(f"{_HISTORY}.at", "past = self.past.get(key)", "past, revision = self.past.get(key), revision + 1"),),
    ),
    Mutant(
        "the-past-forgets-what-is-gone",
        ("revisions",),
        "Revisions: a range at a revision holds what was deleted since",
        (Edit(f"{_PAST}:items", "heapq.merge(keys, gone,", "heapq.merge(keys,"),),
    ),
    Mutant(
        "a-count-of-now-for-the-past",
        ("revisions",),
        "Revisions: a range at a revision counts what was there then",
        (Edit(f"{_PAST}:count", "return now + sum(", "return now + 0 * sum("),),
    ),
    Mutant(
        "a-directory-of-now-for-the-past",
        ("revisions",),
        "Revisions: a directory at a revision has in it what was there then",
        (Edit(f"{_PAST}:Tree.children", "if children is None", "if True"),),
    ),
    Mutant(
        "what-was-given-up-is-read",
        ("revisions",),
        "Revisions: below the oldest that is kept nothing is read",
        (Edit(f"{_PAST}:unreadable", "if 0 < revision < state.history.compacted:", "if False:"),),
    ),
    Mutant(
        "the-past-forgotten-by-the-snapshot",
        ("digests-equal",),
        "Revisions: a replica that began with a snapshot knows what was there before it",
        (Edit(f"{_LOADER}._prepend", "prepend(revision, key, before,", "prepend(revision, key, None,"),),
    ),
    # --- transactions
    Mutant(
        "nothing-is-taken-back",
        ("transactions",),
        "Transactions: one that is refused has changed nothing",
        (Edit(f"{_TRANSACTIONS}:transact", "        namespace.take_back(state)\n", ""),),
    ),
    Mutant(
        "a-creation-is-not-taken-back",
        ("revisions", "transactions"),
        "Transactions: of one that is refused nothing stays",
        (
            Edit(
                f"{_NAMESPACE}:take_back",
                "        _place(state, key, change.after, change.before)\n",
                "        if change.before is not None:\n            _place(state, key, change.after, change.before)\n",
            ),
        ),
    ),
    Mutant(
        "the-other-branch",
        ("transactions",),
        "Transactions: the comparisons choose the branch",
        (Edit(f"{_TRANSACTIONS}:_Transaction.run", "op.then if succeeded", "op.then if not succeeded"),),
    ),
    Mutant(
        "any-comparison-is-enough",
        ("transactions",),
        "Transactions: all comparisons hold",
        (Edit(f"{_TRANSACTIONS}:_Transaction.run", "succeeded = all(", "succeeded = not op.compares or any("),),
    ),
    Mutant(
        "a-refusal-within-is-passed-over",
        ("transactions",),
        "Transactions: what is refused in a transaction within another undoes both",
        (
            Edit(
                f"{_TRANSACTIONS}:_Transaction._do",
                "if isinstance(result, _REFUSALS):",
                "if isinstance(result, _REFUSALS) and len(place) == 1:",
            ),
        ),
    ),
    # --- ephemeral files
    Mutant(
        "an-ephemeral-stays",
        ("ephemerals", "revisions"),
        "Ephemerals: a file goes with the last session that it lives with",
        (Edit(f"{_NAMESPACE}:detach", "if not left:", "if False:"),),
    ),
    Mutant(
        "an-ephemeral-goes-with-its-first-session",
        ("ephemerals", "revisions"),
        "Ephemerals: a file stays as long as one of its sessions lives",
        (Edit(f"{_NAMESPACE}:detach", "if not left:", "if True:"),),
    ),
    Mutant(
        "attachments-forgotten-by-the-snapshot",
        ("digests-equal", "ephemerals"),
        "Ephemerals: a replica that began with a snapshot knows what lives with a session",
        (Edit(f"{_LOADER}._add_ephemeral", "files.add(stored.path)", "files"),),
    ),
    Mutant(
        "one-that-expires-leaves-its-files",
        ("ephemerals",),
        "Ephemerals: a session that runs out takes its files with it as one that is closed does",
        (Edit(f"{_SESSIONS}:end_sessions", "for path in sorted(session.files):", "for path in () if died else ():"),),
    ),
    # --- watches
    Mutant(
        "a-page-ends-within-a-revision",
        ("watch-completeness",),
        "Watches: what a page had no room for comes with the next",
        (
            Edit(
                f"{_READING}:read_changes",
                "position = (change.revision, place + 1)",
                "position = (change.revision + 1, 0)",
            ),
        ),
    ),
    Mutant(
        "a-change-is-told-twice",
        ("watch-completeness",),
        "Watches: each change is told once",
        (Edit(f"{_READING}:_placed", "if change.revision != since or place >= skip:", "if True:"),),
    ),
    Mutant(
        "the-first-change-is-passed-over",
        ("revisions", "watch-completeness"),
        "Watches: the changes from a revision on begin with that revision's",
        (
            Edit(
                f"{_HISTORY}._first_since",
                "if self.rows[middle].revision < revision:",
                "if self.rows[middle].revision <= revision:",
            ),
        ),
    ),
    Mutant(
        "given-up-and-not-told",
        ("watch-completeness",),
        "Watches: a reader whose place is gone is told so",
        (Edit(f"{_READING}:read_changes", "if since <= state.history.compacted:", "if False:"),),
    ),
    Mutant(
        "deletions-are-not-watched",
        ("watch-completeness",),
        "Watches: each change that was asked for is told",
        (Edit(f"{_READING}:read_changes", "(query.deletes if change.after is None else query.puts)", "query.puts"),),
    ),
    Mutant(
        "the-value-of-now-for-the-one-before",
        ("watch-completeness",),
        "Watches: a change is told with what was there before it",
        (
            Edit(
                f"{_READING}:_change_view",
                "key_view(change.key, change.before) if",
                "key_view(change.key, change.after or change.before) if",
            ),
        ),
    ),
    # --- counters
    Mutant(
        "the-sum-before-the-addition",
        ("revisions", "transactions"),
        "Counters: whoever adds is told the sum",
        (Edit(f"{_NAMESPACE}:add", "return files.Counted(count,", "return files.Counted(count - op.amount,"),),
    ),
)
