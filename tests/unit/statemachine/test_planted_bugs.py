"""The models and the fuzzer notice: each of these bugs, planted in the machine, is found by the proof beside it."""

from __future__ import annotations

import unittest
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.simulation.mutants.edits import Edit, planted_edits
from tests.unit.statemachine.test_access_model import AccessAgainstAModel
from tests.unit.statemachine.test_history_model import HistoryAgainstAModel
from tests.unit.statemachine.test_lock_model import LocksOfAllModes
from tests.unit.statemachine.test_namespace_model import NamespaceAgainstAModel
from tests.unit.statemachine.test_passing_model import HoldsPassOn

pytestmark = pytest.mark.interpreted

_NAMESPACE: Final = "coordinator.statemachine.namespace"
_PAST: Final = "coordinator.statemachine.past"
_READING: Final = "coordinator.statemachine.reading"
_HISTORY: Final = "coordinator.statemachine.history:History"
_TRANSACTIONS: Final = "coordinator.statemachine.transactions"
_LOCKING: Final = "coordinator.statemachine.locking"
_HANDING: Final = "coordinator.statemachine.handing"
_LOCK: Final = "coordinator.statemachine.locks:Lock"
_CHANGES: Final = "coordinator.statemachine.lock_changes"
_SESSIONS: Final = "coordinator.statemachine.sessions"
_LOADER: Final = "coordinator.statemachine.snapshot:Loader"
_RIGHTS: Final = "coordinator.statemachine.rights"
_PRINCIPALS: Final = "coordinator.statemachine.principals"
_STATE: Final = "coordinator.statemachine.state:State"
_ROLES: Final = "coordinator.statemachine.roles"
_ADMINISTRATION: Final = "coordinator.statemachine.administration"
_QUOTAS: Final = "coordinator.statemachine.quotas"
_SESSION: Final = "coordinator.statemachine.sessions:Session"
_WORK: Final = "coordinator.statemachine.work:Work"

IN_THE_NAMESPACE = [
    ("implied-directories-uncounted", Edit(f"{_NAMESPACE}:_arrives", "if known or key in rows:", "if True:")),
    ("directories-outlive-what-implies-them", Edit(f"{_NAMESPACE}:_leaves", "if key in rows:", "if True:")),
    ("an-ephemeral-stays", Edit(f"{_NAMESPACE}:detach", "if not left:", "if False:")),
    ("an-ephemeral-goes-with-its-first-session", Edit(f"{_NAMESPACE}:detach", "if not left:", "if True:")),
    (
        "a-generation-that-is-not-compared",
        Edit(f"{_NAMESPACE}:_mismatch", "(ANY_GENERATION, known.version)", "(generation,)"),
    ),
    (
        "a-recursive-delete-that-leaves-something",
        Edit(f"{_NAMESPACE}:_delete_span", "seek(span.start), count)", "seek(span.start), count - 1)"),
    ),
    (
        "the-revision-after-the-one-asked-for",
        Edit(f"{_HISTORY}.at", "bisect_right(past, revision, ", "bisect_right(past, revision + 1, "),
    ),
    ("the-past-forgets-what-is-gone", Edit(f"{_PAST}:items", "heapq.merge(keys, gone,", "heapq.merge(keys,")),
    ("a-count-of-now-for-the-past", Edit(f"{_PAST}:count", "return now + sum(", "return now + 0 * sum(")),
    ("a-directory-of-now-for-the-past", Edit(f"{_PAST}:Tree.children", "if children is None", "if True")),
    ("nothing-is-taken-back", Edit(f"{_TRANSACTIONS}:transact", "        namespace.take_back(state)\n", "")),
    ("history-is-not-taken-back", Edit(f"{_HISTORY}.take_back", "    past.pop()\n", "    past[-1:] = past[-1:]\n")),
    (
        "the-other-branch",
        Edit(f"{_TRANSACTIONS}:_Transaction.run", "op.then if succeeded else", "op.then if not succeeded else"),
    ),
    ("changes-forgotten-by-the-snapshot", Edit(f"{_LOADER}._prepend", "key, before,", "key, None,")),
    (
        "bytes-of-results-forgotten-by-the-snapshot",
        Edit(f"{_LOADER}._add_results", "session.keep(number, result)", "session.results[number] = result"),
    ),
    ("attachments-forgotten-by-the-snapshot", Edit(f"{_LOADER}._add_ephemeral", "files.add(stored.path)", "files")),
    (
        "each-operation-deletes-as-many-as-a-command-may",
        Edit(f"{_NAMESPACE}:_refuse_deletions", "state.work.deleted = state.work.deleted + count", "count"),
    ),
    ("single-deletions-cost-nothing", Edit(f"{_NAMESPACE}:delete", "_refuse_deletions(state, 1)", "None")),
    ("a-transaction-pays-for-the-one-before", Edit(f"{_WORK}.begin", "self.deleted = 0", "pass")),
]
IN_THE_LOCKS = [
    ("readers-overtake", Edit(f"{_LOCKING}:_is_free_for", "if lock.queue and not", "if False and not")),
    (
        "one-reader-at-a-time",
        Edit(f"{_HANDING}:hand_on", "while lock.queue:", "for _ in range(1 if lock.queue else 0):"),
    ),
    ("one-too-many-is-counted", Edit(f"{_LOCK}.admits", "< self.limit", "<= self.limit")),
    ("an-upgrade-lets-readers-in", Edit(f"{_LOCK}.admits", "or self.upgrading is not None", "")),
    (
        "an-upgrade-never-ends",
        Edit(f"{_HANDING}:_Handing.finish_upgrades", "if _finish_upgrade(state, index, lock):", "if False:"),
    ),
    ("an-upgrade-outlives-its-holder", Edit(f"{_LOCKING}:let_go", "if lock.upgrading == key:", "if False:")),
    (
        "a-downgrade-wakes-nobody",
        Edit(f"{_CHANGES}:_downgrade", "    handing.hand_on(state, index, (lock.name,))\n", ""),
    ),
    (
        "some-of-several-names",
        Edit(f"{_HANDING}:_is_next", "for name in waiter.names:", "for name in waiter.names[:1]:"),
    ),
    (
        "a-leaver-wakes-nobody",
        Edit(
            f"{_LOCKING}:_release",
            "freed += leave_line(state, session, lock.queue[key])",
            "leave_line(state, session, lock.queue[key])\n            freed.append('')",
        ),
    ),
    ("a-cancel-of-one-name-alone", Edit(f"{_LOCKING}:cancel", "names = has.names", "names = (op.name,)")),
    ("other-lines-are-not-gone-over", Edit(f"{_HANDING}:_Handing.let_in", "self.pending[taken] = None", "pass")),
    (
        "the-dead-leave-no-lines",
        Edit(f"{_SESSIONS}:end_sessions", "freed += locking.leave_lines(state, session)", "pass"),
    ),
    (
        "granted-to-one-that-ends-too",
        Edit(
            f"{_SESSIONS}:end_sessions",
            "        freed += locking.let_go_of_all(state, index, session, died=died)\n",
            "        freed = locking.let_go_of_all(state, index, session, died=died)\n"
            "        handing.hand_on(state, index, freed)\n",
        ),
    ),
    (
        "a-re-entrant-one-stands-behind-others-that-wait-for-it",
        Edit(f"{_HANDING}:_is_next", "if lock.is_joined_by(waiter, session):", "if False:"),
    ),
    (
        "who-comes-to-hold-a-name-waits-for-it-still",
        Edit(f"{_HANDING}:_Handing.let_in", "self.joined[session.session, taken] = None", "pass"),
    ),
    (
        "re-entrant-waiters-forgotten-by-the-snapshot",
        Edit(f"{_LOADER}._add_waiters", "reentrant=waiter.reentrant", "reentrant=False"),
    ),
    (
        "an-upgrade-keeps-its-token",
        Edit(f"{_HANDING}:make_exclusive", "lock.token = fencing_token(state.epoch, index)", "lock.token -= 1"),
    ),
    (
        "holders-forgotten-by-the-snapshot",
        Edit(f"{_LOADER}._add_lock", "= stored.upgrading, stored.delay,", "= None, None,"),
    ),
    ("a-session-takes-as-much-as-it-likes", Edit(f"{_LOCKING}:_take_free", "no_room_in_session(", "None and (")),
    ("a-session-waits-for-as-much-as-it-likes", Edit(f"{_LOCKING}:_wait", "no_room_in_session(", "None and (")),
    ("what-was-let-go-counts", Edit(f"{_SESSION}.holds_no_more", "self.places -= 1", "pass")),
    ("who-left-the-line-counts", Edit(f"{_SESSION}.waits_no_more", "self.places -= 1", "pass")),
]
IN_THE_PAST = [
    ("nothing-is-given-up", Edit(f"{_HISTORY}.compact", "self.compacted = max(self.compacted, revision)", "pass")),
    ("what-was-given-up-is-kept", Edit(f"{_HISTORY}.compact", "self._may_be_given_up = True", "pass")),
    (
        "what-comes-is-given-up",
        Edit(f"{_NAMESPACE}:compact", "if not 0 <= op.revision <= index:", "if op.revision < 0:"),
    ),
    ("given-up-twice", Edit(f"{_NAMESPACE}:compact", "if op.revision < state.history.compacted:", "if False:")),
    (
        "anybody-gives-it-up",
        Edit(f"{_RIGHTS}:refuse", "if rights and not", "if type(op).__name__ != 'Compact' and rights and not"),
    ),
    ("what-is-kept-no-more-is-read", Edit(f"{_PAST}:unreadable", "0 < revision < state", "False and state")),
    ("the-oldest-is-not-read", Edit(f"{_PAST}:unreadable", "0 < revision < state", "0 < revision <= state")),
    ("who-comes-too-late-misses-something", Edit(f"{_READING}:read_changes", "since <= state", "since < state")),
    ("who-comes-too-late-is-not-told", Edit(f"{_READING}:read_changes", "if since <= state", "if False and state")),
    ("what-was-told-is-told-again", Edit(f"{_READING}:_placed", "place >= skip", "True")),
    (
        "what-is-too-much-goes-in-silence",
        Edit(f"{_HISTORY}._drop", "max(self.compacted, oldest.revision)", "self.compacted"),
    ),
    (
        "what-is-too-much-is-kept",
        Edit(f"{_HISTORY}._drop_some", "order.first > CHANGES_MAX or", "order.first > CHANGES_MAX + 1 or"),
    ),
    ("bytes-that-were-replaced-are-not-counted", Edit(f"{_HISTORY}.append", "self.bytes += len(before.value)", "pass")),
    (
        "bytes-that-were-replaced-forgotten-by-the-snapshot",
        Edit(f"{_HISTORY}.prepend", "content_size(before)", "0"),
    ),
    ("compaction-forgotten-by-the-snapshot", Edit(f"{_LOADER}._add_history", "begin(stored.compacted,", "begin(0,")),
    ("one-number-for-all-of-an-entry", Edit(f"{_NAMESPACE}:_sequence", "state.sequenced + 1", "0")),
    ("numbers-of-the-entry-before-go-on", Edit(f"{_TRANSACTIONS}:transact", "    state.sequenced = 0\n", "")),
    ("numbers-without-an-epoch", Edit(f"{_NAMESPACE}:_sequence", "fencing_token(state.epoch, index)", "index")),
    ("numbers-of-eighteen-digits", Edit(f"{_NAMESPACE}:_sequence", ":019d", ":018d")),
]
IN_THE_PASSING = [
    ("a-shared-hold-is-taken-over", Edit(f"{_LOCKING}:_take_over", "if lock.mode != EXCLUSIVE:", "if False:")),
    (
        "a-shared-place-is-taken-over",
        Edit(f"{_LOCKING}:_take_over", "if lock.queue[before].mode != EXCLUSIVE:", "if False:"),
    ),
    (
        "one-of-several-names-is-taken-over",
        Edit(f"{_LOCKING}:_take_over", "len(lock.holders[before].names) == 1", "True"),
    ),
    ("a-take-over-takes-nothing", Edit(f"{_LOCKING}:acquire", "if op.take_over:", "if False:")),
    ("a-take-over-forgets-the-lock-delay", Edit(f"{_LOCKING}:_renamed", "grant.delay_ms", "0")),
    (
        "a-place-that-is-taken-over-is-the-last",
        Edit(
            f"{_LOCKING}:_take_over",
            "for key, waiter in lock.queue.items()",
            "for key, waiter in sorted(lock.queue.items(), key=lambda place: place[0] == before)",
        ),
    ),
    (
        "the-session-does-not-know-of-the-take-over",
        Edit(f"{_LOCKING}:_take_over", "session.renumber(session.locks, lock.name, held, holder.acquisition)", "pass"),
    ),
    (
        "whoever-names-a-session-speaks-for-it",
        Edit(f"{_SESSIONS}:own", "session.principal == asker.name", "True"),
    ),
    (
        "a-hand-over-keeps-the-token",
        Edit(f"{_CHANGES}:hand_over", "= fencing_token(state.epoch, index)", "= grant.token"),
    ),
    (
        "an-heir-stays-in-line",
        Edit(f"{_CHANGES}:hand_over", "        locking.leave_line(state, heir, waiter)\n", "        pass\n"),
    ),
    ("an-heir-without-the-lock-delay", Edit(f"{_CHANGES}:hand_over", "grant.delay_ms", "0")),
    (
        "what-is-re-entrant-of-the-heirs-waits-on",
        Edit(f"{_CHANGES}:hand_over", "came=((op.to_session, op.name),)", "came=()"),
    ),
    (
        "an-heir-without-the-right",
        Edit(f"{_CHANGES}:_heir", "refuse_name(access, (commands.LOCK,), op.name)", "None"),
    ),
    (
        "an-heir-has-more-than-it-may",
        Edit(f"{_CHANGES}:_heir", "if waiter is None and heir is not giver:", "if False:"),
    ),
    ("an-heir-of-some-of-its-names", Edit(f"{_CHANGES}:_heir", "len(waiter.names) > 1", "False")),
    (
        "a-shared-hold-goes-to-one-that-does-not-wait-for-it",
        Edit(f"{_CHANGES}:_heir", "if lock.mode != EXCLUSIVE:", "if False:"),
    ),
    (
        "one-of-several-holds-is-handed-over",
        Edit(f"{_CHANGES}:_not_one_to_give", " or (lock.mode == EXCLUSIVE and len(lock.holders) > 1)", ""),
    ),
    (
        "one-of-several-names-is-handed-over",
        Edit(f"{_CHANGES}:_not_one_to_give", "elif len(grant.names) > 1 or (", "elif ("),
    ),
    ("a-hand-over-makes-a-deadlock", Edit(f"{_CHANGES}:hand_over", "if cycle:", "if False:")),
    ("handed-over-to-oneself", Edit(f"{_CHANGES}:_heir", "if to == (giver.session, op.acquisition):", "if False:")),
    ("force-wakes-nobody", Edit(f"{_CHANGES}:force_release", "    handing.hand_on(state, index, (op.name,))\n", "")),
    ("force-takes-from-all", Edit(f"{_CHANGES}:force_release", "if op.session in (0, key[0])", "if True")),
    (
        "force-ends-the-lock-delay",
        Edit(f"{_CHANGES}:force_release", "    handing.hand_on(", "    lock.delay = None\n    handing.hand_on("),
    ),
    ("force-needs-no-reason", Edit(f"{_CHANGES}:force_release", " or not op.reason", "")),
    (
        "who-lost-it-is-not-told",
        Edit(f"{_CHANGES}:_remember", "add_break(state, broken)", "state.breaks.add(broken.number, broken)"),
    ),
    ("forced-releases-are-kept-for-ever", Edit(f"{_CHANGES}:_remember", "> BREAKS_MAX", "> BREAKS_MAX + 1")),
    (
        "a-later-forced-release-is-forgotten-with-the-first",
        Edit(f"{_CHANGES}:_remember", "state.broken.get(place) == forgotten.number", "place in state.broken"),
    ),
    ("forced-releases-forgotten-by-the-snapshot", Edit(f"{_LOADER}._add_breaks", "= stored.following", "= 1")),
    ("who-closes-leaves-a-lock-delay", Edit(f"{_LOCKING}:let_go_of_all", "if died and grant", "if grant")),
    ("the-dead-leave-no-lock-delay", Edit(f"{_LOCKING}:let_go_of_all", "if died and grant", "if not died and grant")),
    (
        "the-last-lock-delay-counts",
        Edit(f"{_LOCKING}:_delay", "lock.delay.delay_ms if lock.delay is not None else 0", "0"),
    ),
    (
        "a-lock-delay-does-not-begin-anew",
        Edit(
            f"{_LOCKING}:_delay",
            "delay_ms, index)\n    state",
            "delay_ms, lock.delay.since if lock.delay else index)\n    state",
        ),
    ),
    ("let-in-during-the-lock-delay", Edit(f"{_LOCK}.admits", "self.delay is not None or ", "")),
    ("upgraded-during-the-lock-delay", Edit(f"{_CHANGES}:_upgrade", " and lock.delay is None", "")),
    ("an-upgrade-ends-during-the-lock-delay", Edit(f"{_HANDING}:_finish_upgrade", " or lock.delay is not None", "")),
    ("a-lock-delay-of-before-ends-this-one", Edit(f"{_LOCKING}:end_delays", " and lock.delay.since == since", "")),
    (
        "the-end-of-a-lock-delay-wakes-nobody",
        Edit(f"{_LOCKING}:end_delays", "    handing.hand_on(state, index, ended)\n", ""),
    ),
    ("a-name-without-holders-has-no-lock-delay", Edit(f"{_LOCK}.is_free", " and self.delay is None", "")),
    (
        "lock-delays-forgotten-by-the-snapshot",
        Edit(f"{_LOADER}._add_lock", "= stored.upgrading, stored.delay,", "= stored.upgrading, None,"),
    ),
]
IN_THE_ACCESS = [
    ("any-right-will-do", Edit(f"{_RIGHTS}:refuse_name", "access.reach[right]", "sum(access.reach.values(), ())")),
    (
        "ranges-without-rights",
        Edit(f"{_RIGHTS}:_refuse_span", "None if access.reaches_all(rights, span)", "None if True"),
    ),
    (
        "rights-of-before-the-change",
        Edit(f"{_STATE}.rights_changed", "self.accesses.clear()", "pass"),
    ),
    ("a-role-that-is-removed-and-kept", Edit(f"{_ROLES}:remove_role", "if op.name in principal.roles:", "if False:")),
    (
        "a-role-changes-from-the-next-change-on",
        Edit(
            f"{_ROLES}:set_role",
            "    state.rights_changed(index)\n",
            "    state.rights_index = index\n",
        ),
    ),
    (
        "a-role-that-takes-rights-away",
        Edit(f"{_PRINCIPALS}:Principal.access", "held = [self.permissions, *(", "held = [*("),
    ),
    (
        "a-token-that-widens",
        Edit(f"{_PRINCIPALS}:_within_both", "*(prefix for prefix in one if prefix.startswith(other))", "*other"),
    ),
    (
        "a-narrower-prefix-of-the-token-is-lost",
        Edit(f"{_PRINCIPALS}:_within_both", "*(p for p in other if p.startswith(one))", ""),
    ),
    (
        "prefixes-beside-one-another-get-lost",
        Edit(f"{_PRINCIPALS}:least", "not prefix.startswith(found[-1])", "False"),
    ),
    (
        "a-token-that-was-removed-still-speaks",
        Edit(f"{_PRINCIPALS}:_work_out", "state.tokens.get(token) != (actor or name)", "False"),
    ),
    (
        "a-token-stays-as-narrow-as-it-was",
        Edit(f"{_ROLES}:narrow_token", "state.rights_changed(index)", "state.rights_index = index"),
    ),
    (
        "narrowness-outlives-the-token",
        Edit(f"{_ADMINISTRATION}:forget_token", "if token_id in", "if False and token_id in"),
    ),
    (
        "a-quota-outlives-its-principal",
        Edit(
            f"{_ADMINISTRATION}:remove_principal", "if op.name in state.quotas", "if False and op.name in state.quotas"
        ),
    ),
    ("whoever-writes-owns", Edit(f"{_NAMESPACE}:put", "known.ephemeral, owner)", "known.ephemeral, asker.name)")),
    ("the-writers-quota-not-the-owners", Edit(f"{_NAMESPACE}:put", "known.owner if known is not None else ", "")),
    (
        "growth-in-place-is-free",
        Edit(f"{_NAMESPACE}:room", "int(known is None), grown)", "int(known is None), 0 if known else grown)"),
    ),
    (
        "bytes-stay-with-a-replaced-key",
        Edit(f"{_NAMESPACE}:_place", "state.uses[after.owner].key_bytes += grown", "pass"),
    ),
    ("what-shrinks-is-refused", Edit(f"{_QUOTAS}:_refuse", "or more <= 0", "")),
    ("one-more-than-the-quota", Edit(f"{_QUOTAS}:_refuse", "there + more <= most", "there <= most")),
    (
        "no-quota-of-the-cluster",
        Edit(f"{_QUOTAS}:refuse_keys", "(CLUSTER, owner) if owner else (CLUSTER,)", "(owner,)"),
    ),
    ("the-quota-of-each-is-nobodys", Edit(f"{_QUOTAS}:quota_of", "own is None and", "False and")),
    ("sessions-that-ended-count", Edit(f"{_SESSIONS}:end_sessions", "session.principal, -1)", "session.principal, 0)")),
    (
        "a-retry-of-an-opening-is-over-quota",
        Edit(
            f"{_SESSIONS}:open_session",
            "    known = state.sessions",
            "    refused = quotas.refuse_session(state, asker.name)\n"
            "    if refused is not None:\n"
            "        return refused\n"
            "    known = state.sessions",
        ),
    ),
    (
        "those-let-in-still-wait",
        Edit(
            f"{_HANDING}:_Handing.let_in", "waiter.holder.principal, -len(waiter.names))", "waiter.holder.principal, 0)"
        ),
    ),
    (
        "those-who-leave-still-wait",
        Edit(f"{_LOCKING}:leave_line", "session.principal, -len(waiter.names))", "session.principal, 0)"),
    ),
    (
        "owners-forgotten-by-the-snapshot",
        Edit(f"{_LOADER}._add_owned_key", "stored.ephemeral, owner)", 'stored.ephemeral, "")'),
    ),
    (
        "waiters-forgotten-by-the-snapshot",
        Edit(f"{_LOADER}._add_waiters", "session.principal, 1)", "session.principal, 0)"),
    ),
    (
        "roles-forgotten-by-the-snapshot",
        Edit(f"{_LOADER}._add_permitted", "= stored.permissions, stored.roles", "= stored.permissions, ()"),
    ),
]


def notices(model: type, edit: Edit) -> bool:
    class Model(model):
        pass

    case = Model.TestCase
    case.settings = settings(
        max_examples=400,
        stateful_step_count=50,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # The smallest history of a bug that we know is of no use.
        suppress_health_check=[*HealthCheck],
        report_multiple_bugs=False,
    )
    with planted_edits([edit]):
        return not unittest.defaultTestLoader.loadTestsFromTestCase(case).run(unittest.TestResult()).wasSuccessful()


def test_every_planted_bug_fits_the_code_of_today():
    for name, edit in (*IN_THE_NAMESPACE, *IN_THE_ACCESS, *IN_THE_LOCKS, *IN_THE_PAST, *IN_THE_PASSING):
        with planted_edits([edit]):
            assert name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "edit"), IN_THE_NAMESPACE, ids=[name for name, _ in IN_THE_NAMESPACE])
def test_the_model_of_the_namespace_notices(name, edit):
    assert notices(NamespaceAgainstAModel, edit)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "edit"), IN_THE_ACCESS, ids=[name for name, _ in IN_THE_ACCESS])
def test_the_model_of_rights_and_quotas_notices(name, edit):
    assert notices(AccessAgainstAModel, edit)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "edit"), IN_THE_LOCKS, ids=[name for name, _ in IN_THE_LOCKS])
def test_the_model_of_locks_notices(name, edit):
    assert notices(LocksOfAllModes, edit)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "edit"), IN_THE_PAST, ids=[name for name, _ in IN_THE_PAST])
def test_the_model_of_the_past_notices(name, edit):
    assert notices(HistoryAgainstAModel, edit)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "edit"), IN_THE_PASSING, ids=[name for name, _ in IN_THE_PASSING])
def test_the_model_of_how_holds_pass_on_notices(name, edit):
    assert notices(HoldsPassOn, edit)
