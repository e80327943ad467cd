"""The simulator itself: its seeds are clean, a seed is always the same run, and every planted bug is caught.

What the long runs do is on the command line (`make prove`); here is the slice that runs with the other tests.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import SystemRandom

import pytest

from coordinator import wire
from tests.simulation import __main__ as command_line
from tests.simulation.campaign import Order, Summary, results, run_many
from tests.simulation.checkers import CHECKERS
from tests.simulation.checkers.reads_never_stale import ReadsNeverStale
from tests.simulation.faults import KIND_NAMES, Fault
from tests.simulation.mutants import MUTANTS, MutantDoesNotFit, by_name, planted
from tests.simulation.mutants.edits import Edit, Mutant, planted_edits
from tests.simulation.node import Node
from tests.simulation.run import AS_DRAWN, LIVENESS, PLAIN, nodes_of, run_seed
from tests.simulation.shrink import shrink
from tests.simulation.trace import line
from tests.simulation.watch import NO_DEFECT

ROOT = Path(__file__).parents[2]
CORES = os.cpu_count() or 1
ORDER = Order("raft", AS_DRAWN)
PLAIN_ORDER = Order("raft", AS_DRAWN, workload=PLAIN)
NAMES = {checker.name for checker in CHECKERS} | {LIVENESS, NO_DEFECT}
SLICE = range(1, 41)
EVENTS_MIN = 2_000
"""A seed of fewer events says little."""
SEEDS_MAX = 1_000
"""Within these a planted bug must be caught."""
FRESH_S = 12.0
"""So long seeds that nobody has run before are run with every run of the tests; PROVE_FRESH=A-B runs those again."""
FRESH_MAX = 1_000
FRESH_MIN = 30
"""However slow that is."""
QUICK_SEEDS = 30
"""Within these QUICK bugs are caught, with every run of the tests. Most are within six; what changes elsewhere makes
other runs of the same seeds."""
QUICK: tuple[str, ...] = (
    "vote-not-persisted",
    "term-not-persisted",
    "vote-for-a-log-that-is-behind",
    "pre-vote-raises-the-term",
    "pre-vote-left-out",
    "check-quorum-left-out",
    "majority-of-half",
    "vote-before-its-journal",
    "truncating-what-matches",
    "window-reset-skips-entries",
    "acknowledged-what-was-sent",
    "refusal-counted-as-acknowledgement",
    "acknowledged-before-fsync",
    "acknowledgement-before-its-journal",
    "candidate-asks-before-its-journal",
    "membership-counted-from-the-old-configuration",
    "snapshot-drops-the-configuration",
    "compaction-past-the-snapshot",
    "openings-forgotten-by-the-snapshot",
    "stale-leader-serves-reads",
    "read-confirmed-by-an-earlier-round",
    "lease-read-after-a-pause",
    "lease-counted-from-the-answer",
    "waiter-leaves-without-a-word",
    "retry-applied-twice",
    "only-the-last-number-remembered",
    "token-counted-by-the-lock",
    "token-of-the-request-for-a-later-grant",
    "two-holders-of-one-lock",
    "an-upgrade-keeps-its-token",
    "a-recursive-delete-that-leaves-something",
    "a-count-of-now-for-the-past",
    "the-past-forgotten-by-the-snapshot",
    "the-other-branch",
    "the-first-change-is-passed-over",
    "the-sum-before-the-addition",
    "digests-not-told",
    "witness-serves",
    "dropped-in-word-alone",
    "directories-are-kept",
)


ASKED_FOR: tuple[str, ...] = (
    "vote-not-persisted",
    "vote-twice-in-a-term",
    "term-not-persisted",
    "old-term-committed-by-counting",
    "log-check-skipped",
    "acknowledged-before-fsync",
    "conflicting-suffix-not-truncated",
    "truncating-what-matches",
    "stale-leader-serves-reads",
    "lease-read-after-a-pause",
    "membership-counted-from-the-old-configuration",
    "one-step-change-of-two-members",
    "snapshot-drops-the-configuration",
    "retry-applied-twice",
    "expiry-by-the-local-clock",
    "token-forgotten-by-the-snapshot",
    "learner-counted-as-a-voter",
    "pre-vote-raises-the-term",
    "window-reset-skips-entries",
    "compaction-past-the-snapshot",
    "keep-alive-by-an-unconfirmed-leader",
    "keep-alive-while-its-expiry-is-proposed",
    "keep-alive-while-its-checkpoint-is-proposed",
    "crash-hint-overrides-a-lease-read",
    "read-context-reused-after-a-restart",
    "leases-expire-in-a-burst-after-a-stall",
    "vote-before-its-journal",
    "acknowledgement-before-its-journal",
    "result-before-its-journal",
    "wiped-node-under-its-old-identity",
    "check-quorum-left-out",
    "request-applied-after-its-own-cancel",
)
"""The rules of the algorithm and the turn that must each have a bug which breaks it; whoever removes one leaves a rule
unproven."""


@pytest.fixture(scope="module")
def summary() -> Summary:
    return run_many(ORDER, SLICE, CORES, quiet=True, stop_at_violation=False)


def _trace_of(seed: int) -> list[str]:
    lines: list[str] = []
    run_seed(seed, trace=lambda *event: lines.append(line(*event)))
    return lines


def test_a_slice_of_seeds_is_clean(summary: Summary) -> None:
    assert summary.failures == []
    assert summary.seeds == len(SLICE)


def test_plain_work_alone_is_clean_too() -> None:
    plain = run_many(PLAIN_ORDER, range(1, 9), 1, quiet=True, stop_at_violation=False)
    assert plain.failures == []
    assert plain.checks["linearizability"]
    assert not plain.checks["transactions"]


@pytest.mark.timeout(600)
def test_a_fresh_range_of_seeds_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    asked = os.environ.get("PROVE_FRESH")
    first = SystemRandom().randrange(10**6, 10**9)
    seeds = command_line.seeds_of(asked) if asked else range(first, first + FRESH_MAX)
    summary = Summary()
    begun_s = time.monotonic()
    for result in results(ORDER, seeds, CORES):
        summary.add(result)
        if not asked and summary.seeds >= FRESH_MIN and time.monotonic() - begun_s > FRESH_S:
            break
    with capsys.disabled():
        print(f"\nsimulation: seeds {seeds[0]}-{seeds[0] + summary.seeds - 1}, {summary.events} events", flush=True)
    assert summary.failures == []


def test_a_seed_is_long_enough_to_mean_something(summary: Summary) -> None:
    assert summary.events_min >= EVENTS_MIN
    assert summary.committed >= 50 * summary.seeds
    assert summary.elections >= 2 * summary.seeds


def test_every_checker_checks_and_most_kinds_of_fault_occur(summary: Summary) -> None:
    assert {name for name, count in summary.checks.items() if count} == NAMES
    assert len(summary.faults.keys() & set(KIND_NAMES)) >= 0.8 * len(KIND_NAMES)


def test_a_seed_is_always_the_same_run() -> None:
    assert _trace_of(3) == _trace_of(3)
    assert _trace_of(3) != _trace_of(4)


def test_a_run_does_not_depend_on_how_strings_are_hashed() -> None:
    program = (
        "import hashlib; from tests.simulation.run import run_seed; from tests.simulation.trace import line\n"
        "h = hashlib.sha256()\n"
        "for seed in (5, 6, 7): print(run_seed(seed, trace=lambda *e: h.update(line(*e).encode()))[:6], h.hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(said) == 1


def test_work_is_mixed_unless_it_is_asked_to_be_plain() -> None:
    assert run_seed(3) == run_seed(3, workload="mixed")
    assert run_seed(3) != run_seed(3, workload=PLAIN)


@pytest.mark.parametrize("checker", ["linearizability", "counters"])
def test_a_search_is_given_up_after_so_many_steps(checker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"tests.simulation.checkers.{checker}.SEARCH_STEPS_MAX", 0)
    violation = next(violation for seed in range(1, 30) if (violation := run_seed(seed).violation) is not None)
    assert violation[0] == checker


def test_processes_make_no_difference() -> None:
    alone = [result._replace(happened=()) for result in results(ORDER, range(1, 5), 1)]
    assert [result._replace(happened=()) for result in results(ORDER, range(1, 5), 2)] == alone


def test_leaders_of_three_leave_reads_to_their_delegates(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nodes on one machine do with all their reads."""
    left: Counter[int] = Counter()
    takes = ReadsNeverStale.reads_taken

    def counts(self: ReadsNeverStale, node: Node, leader: int, said: wire.LeftReads) -> None:
        left[self.world.seed] += 1
        takes(self, node, leader, said)

    monkeypatch.setattr(ReadsNeverStale, "reads_taken", counts)
    seeds = [seed for seed in range(1, 41) if nodes_of(seed) == 3]
    assert all(run_seed(seed).violation is None for seed in seeds)
    assert 3 * len(left) > len(seeds)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 7])
def test_clusters_of_other_sizes_hold_too(nodes: int) -> None:
    assert run_many(Order("raft", nodes), range(1, 4), 1, quiet=True, stop_at_violation=True).failures == []


def _caught_at(mutant: str, seeds: int) -> tuple[int, str, str] | None:
    """The seed, the checker and what it said."""
    for result in results(Order("raft", MUTANTS[mutant].nodes, mutant), range(1, seeds + 1), 1):
        if result.violation is not None:
            return result.seed, *result.violation
    return None


def _is_by(found: tuple[int, str, str] | None, mutant: str) -> bool:
    """Was it caught by a checker that may name it, and not because its own text raised something? Assertions of the
    product in the function that was edited do count."""
    if found is None:
        return False
    _, checker, said = found
    of_its_own = "(<mutant of " in said and "AssertionError(" not in said
    return checker in MUTANTS[mutant].caught_by and not (checker == NO_DEFECT and of_its_own)


@pytest.fixture(scope="module")
def caught(request: pytest.FixtureRequest) -> dict[str, tuple[int, str, str] | None]:
    """Of the QUICK bugs that this run is to see, where each was caught: as many at a time as there are cores."""
    quick = [item.callspec.params.get("mutant") for item in request.session.items if hasattr(item, "callspec")]
    names = [name for name in QUICK if name in quick]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        return dict(zip(names, pool.map(partial(_caught_at, seeds=QUICK_SEEDS), names, chunksize=1), strict=True))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", QUICK)
def test_a_planted_bug_is_caught_where_the_code_without_it_is_clean(
    mutant: str, summary: Summary, caught: dict[str, tuple[int, str, str] | None]
) -> None:
    assert summary.failures == []  # The control run.
    assert {*range(1, QUICK_SEEDS + 1)} <= {*SLICE}, "it is of the same seeds"
    assert _is_by(caught[mutant], mutant), caught[mutant]


@pytest.fixture(scope="module")
def control() -> Callable[[int], list[tuple[int, str, str]]]:
    """The violations of the seeds up to one without any planted bug; each is run once for all bugs."""
    clean = Summary()

    def up_to(seed: int) -> list[tuple[int, str, str]]:
        for result in results(ORDER, range(clean.seeds + 1, seed + 1), CORES):
            clean.add(result)
        return clean.failures

    return up_to


def test_each_planted_bug_says_which_checkers_may_name_it() -> None:
    for mutant in MUTANTS.values():
        assert mutant.caught_by, mutant.name
        assert {*mutant.caught_by} <= NAMES, mutant.name


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mutant", sorted(set(MUTANTS) - set(QUICK)))
def test_every_planted_bug_is_caught(mutant: str, control: Callable[[int], list[tuple[int, str, str]]]) -> None:
    found = _caught_at(mutant, SEEDS_MAX)
    assert found is not None
    assert _is_by(found, mutant), found
    assert control(found[0]) == []


def test_an_error_of_a_planted_bugs_own_text_catches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    where, before = "coordinator.consensus.raft.elections:_become_leader", "raft.role = Role.LEADER"
    for after, is_caught in [("raft.role = [][0]", False), ("assert raft.in_doubt", True)]:
        mutant = Mutant("planted", (NO_DEFECT,), "", (Edit(where, before, after),))
        monkeypatch.setitem(MUTANTS, "planted", mutant)
        found = _caught_at("planted", 1)
        assert found is not None
        assert "(<mutant of _become_leader>:" in found[2]
        assert _is_by(found, "planted") == is_caught
    assert not _is_by(None, "planted")


def test_every_planted_bug_fits_the_code_and_leaves_nothing_behind() -> None:
    before = run_seed(2)
    for name in MUTANTS:
        with planted(name):
            pass
    assert run_seed(2) == before


def test_a_mutant_that_does_not_fit_is_an_error() -> None:
    edit = Edit("coordinator.consensus.quorum:majority", "no such text", "")
    with pytest.raises(MutantDoesNotFit, match="expected this text once"), planted_edits([edit]):
        pass


def test_a_mutant_that_names_what_its_module_does_not_know_is_an_error() -> None:
    """Its own NameError would be caught, and not what it was planted for."""
    edit = Edit("coordinator.consensus.quorum:majority", "return size", "return [twice(n) for n in (size,)][0]")
    with pytest.raises(MutantDoesNotFit, match="there is no twice"), planted_edits([edit]):
        pass


def test_names_of_mutants_are_lower_case_words_joined_by_hyphens(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--list-mutants"]) == 0
    names = capsys.readouterr().out.split()
    assert names == list(MUTANTS)
    assert all(word.isascii() and word.islower() and word.isalpha() for name in names for word in name.split("-"))


def test_every_rule_that_must_have_a_mutant_has_one() -> None:
    assert {*ASKED_FOR} <= MUTANTS.keys()


def test_no_two_mutants_have_one_name() -> None:
    one = MUTANTS["vote-not-persisted"]
    with pytest.raises(AssertionError, match="two mutants 'vote-not-persisted'"):
        by_name([one, one._replace(rule="another")])


def test_a_summary_in_json_has_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--engine", "raft", "--seeds", "1-2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"seeds", "events", "faults", "elections", "committed", "checks", "violations"} <= said.keys()
    assert (said["seeds"], said["violations"]) == (2, 0)
    assert 0 < said["events_min"] <= said["events"] / 2


def test_the_command_line_runs_mixed_work_unless_it_is_asked_for_plain(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for words in ([], ["--workload", "mixed"], ["--workload", "plain"]):
        assert command_line.main(["--seeds", "3", "--json", *words]) == 0
        said.append(json.loads(capsys.readouterr().out)["checks"])
    assert said[0] == said[1] != said[2]


def test_a_caught_mutant_ends_with_status_1_and_says_by_whom(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--mutant", "vote-not-persisted"]) == 1
    said = capsys.readouterr().out.split()
    assert said[:3] == ["caught:", "vote-not-persisted", "by"]
    assert said[3] in MUTANTS["vote-not-persisted"].caught_by
    assert said[4:6] == ["at", "seed"]


def test_a_mutant_that_nobody_knows_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(["--mutant", "no-such-mutant"])
    assert end.value.code == 2


def test_shrinking_finds_the_faults_that_are_needed() -> None:
    faults = [Fault(number, "crash", "any", 1, 0.0, "", number) for number in range(40)]
    needed = {faults[3], faults[17], faults[18]}
    assert shrink(faults, lambda some: needed <= set(some)) == sorted(needed)
