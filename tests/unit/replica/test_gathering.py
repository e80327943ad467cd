"""Who was answered is waited for within bounds, where that is worth it."""

from __future__ import annotations

import pytest

from coordinator.replica.gathering import (
    ABSENT_MAX,
    GATHER_US_MAX,
    IN_FLIGHT_US_MAX,
    LATELY,
    PAUSE_COSTS,
    PAUSE_COSTS_MAX,
    QUICK_EACH_MAX,
    QUICK_MAX,
    QUICK_MIN,
    ROUNDS_US_MAX,
    WAITING_MAX,
    Gathering,
)

COMMIT_US = 4_000
GATHER_US = COMMIT_US * 3 // 4
ROUND_US = 800
QUICK_COST_US = ROUND_US * 5 // 2


def of_a_disk(commit_us: int = COMMIT_US) -> Gathering:
    gathering = Gathering()
    for _ in range(LATELY):
        gathering.took(commit_us)
    return gathering


def of_rounds(round_us: int = ROUND_US) -> Gathering:
    gathering = of_a_disk(150)
    for index in range(1, LATELY + 1):
        gathering.proposed(["x"], index, 0)
        gathering.applied(["x"], index, round_us)
    assert not gathering.until_us
    return gathering


def arrive(gathering: Gathering, callers: str, now_us: int) -> None:
    for caller in callers:
        gathering.arrived(caller, now_us)


def test_nobody_waits_before_it_is_known_what_that_is_worth():
    gathering = Gathering()
    gathering.proposed([*"abcdef"], 1, 0)
    assert not gathering.holds(1, 1)
    gathering.applied([*"abcdef"], 1, 2)
    assert not gathering.holds(1, 3)


def test_a_disk_is_as_slow_as_its_quickest_commit_of_late():
    """Where processors are short a commit takes long on any disk."""
    gathering = of_a_disk(150)
    for number in range(10 * LATELY):
        gathering.took(150 if number % LATELY == 3 else 2_500)
        assert (gathering.commit_us, gathering.cost_us) == (150, 0)
    for _ in range(2 * LATELY):
        gathering.took(2_500)
    assert (gathering.commit_us, gathering.cost_us) == (2_500, 2_500)


def test_on_a_quick_disk_it_is_worth_some_rounds_of_the_middle():
    assert of_rounds(800).cost_us == 2_000
    assert of_rounds(100_000).cost_us == ROUNDS_US_MAX
    gathering = of_a_disk(150)
    for index in range(1, LATELY + 1):
        gathering.proposed(["x"], index, 0)
        gathering.applied(["x"], index, 400 if index % 2 else 1_000_000 if index % 4 else 500)
    assert gathering.cost_us == 1_250


def test_a_round_ends_where_the_entry_that_began_it_is_applied():
    gathering = of_a_disk(150)
    for index in range(10, 10 + 10 * LATELY, 10):
        gathering.proposed(["x"], index, 1_000)
        gathering.proposed(["y"], index + 1, 1_400)
        gathering.applied([], index - 1, 1_500)
        gathering.applied(["x", "y"], index + 1, 1_900)
    assert gathering.cost_us == 900 * 5 // 2


def test_a_command_waits_for_all_that_were_answered_and_no_longer():
    gathering = of_a_disk()
    gathering.applied([*"aab"], 1, 1_000)
    assert gathering.until_us == 1_000 + GATHER_US
    assert gathering.holds(1, 1_000)
    arrive(gathering, "aax", 1_200)
    assert gathering.holds(4, 1_200), "b is not back, whoever else comes"
    arrive(gathering, "b", 1_300)
    assert not gathering.holds(5, 1_300)
    assert gathering.until_us == 0
    assert not gathering.holds(1, 1_301)


def test_once_half_are_back_the_others_have_as_long_as_these_took():
    gathering = of_a_disk()
    gathering.applied([*"abcd"], 1, 1_000)
    arrive(gathering, "a", 1_100)
    assert gathering.until_us == 1_000 + GATHER_US
    arrive(gathering, "b", 2_200)
    assert gathering.until_us == 3_400
    arrive(gathering, "c", 2_500)
    assert gathering.until_us == 3_400, "that is settled once"
    assert gathering.holds(3, 3_399)
    assert not gathering.holds(3, 3_400)
    gathering.applied([*"abcd"], 2, 3_500)
    assert gathering.holds(1, 3_500), "most came, so all are not paused"


def test_where_these_took_no_time_the_others_have_a_quarter_of_what_it_is_worth():
    gathering = of_a_disk()
    gathering.applied([*"ab"], 1, 1_000)
    arrive(gathering, "a", 1_001)
    assert gathering.until_us == 1_001 + COMMIT_US // 4


def test_who_stayed_away_is_not_waited_for_twice_as_long_each_time():
    gathering = of_a_disk()
    now_us = 0
    for times in range(3):
        gathering.applied([*"ab"], 1, now_us)
        arrive(gathering, "a", now_us + 10)
        until_us = gathering.until_us
        assert gathering.holds(1, until_us - 1)
        assert not gathering.holds(1, until_us)
        pause_us = (PAUSE_COSTS << times) * COMMIT_US
        gathering.applied([*"ab"], 1, until_us + pause_us - 1)
        arrive(gathering, "a", until_us + pause_us - 1)
        assert not gathering.holds(1, until_us + pause_us - 1), "b is left out"
        now_us = until_us + pause_us
    gathering.applied([*"ab"], 1, now_us)
    arrive(gathering, "ab", now_us + 10)
    assert not gathering.holds(2, now_us + 10)
    gathering.applied([*"ab"], 1, now_us + 20)
    arrive(gathering, "a", now_us + 30)
    assert gathering.holds(1, now_us + 30), "b came in time, and is waited for again"
    until_us = gathering.until_us
    assert not gathering.holds(1, until_us)
    gathering.applied(["b"], 1, until_us + PAUSE_COSTS * COMMIT_US)
    assert gathering.holds(1, until_us + PAUSE_COSTS * COMMIT_US), "from the beginning"


def test_where_most_stay_away_nobody_is_waited_for_twice_as_long_each_time():
    gathering = of_a_disk()
    now_us = 0
    for times in range(15):
        gathering.applied([*"abcd"], 1, now_us)
        arrive(gathering, "a", now_us)
        until_us = gathering.until_us
        assert gathering.holds(2, until_us - 1)
        assert not gathering.holds(2, until_us)
        pause_us = min(PAUSE_COSTS << times, PAUSE_COSTS_MAX) * COMMIT_US
        for waited_us in (1, pause_us - 1):
            gathering.applied([*"wxyz"], 1, until_us + waited_us)
            assert not gathering.holds(1, until_us + waited_us)
            gathering.proposed([*"wxyz"], 1, until_us + waited_us)
            assert not gathering.holds(1, until_us + waited_us)
        now_us = until_us + pause_us
    gathering.applied([*"ab"], 1, now_us)
    arrive(gathering, "ab", now_us)
    assert not gathering.holds(2, now_us)
    gathering.applied([*"ab"], 1, now_us)
    assert not gathering.holds(1, now_us + GATHER_US)
    gathering.applied([*"ab"], 1, now_us + GATHER_US + PAUSE_COSTS * COMMIT_US)
    assert gathering.holds(1, now_us + GATHER_US + PAUSE_COSTS * COMMIT_US), "from the beginning"


def test_no_more_callers_are_remembered_than_a_bound():
    gathering = of_a_disk()
    now_us = 0
    for number in range(ABSENT_MAX + 1):
        gathering.applied(["back", f"away {number}"], 1, now_us)
        gathering.arrived("back", now_us)
        now_us = gathering.until_us
        assert not gathering.holds(1, now_us)
    assert len(gathering._absent) <= ABSENT_MAX


def test_what_comes_while_entries_are_in_flight_waits_for_them_within_bounds():
    gathering = of_a_disk()
    gathering.proposed(["a"], 1, 1_000)
    assert gathering.holds(1, 1_001)
    assert gathering.holds(9, 1_000 + 2 * COMMIT_US - 1)
    assert not gathering.holds(9, 1_000 + 2 * COMMIT_US)
    gathering.proposed(["a"], 2, 20_000)
    assert gathering.holds(1, 20_001), "a majority that is slow is no reason for a pause"


def test_what_is_applied_ends_the_waiting_for_it_and_begins_that_for_its_callers():
    gathering = of_a_disk()
    gathering.proposed(["a"], 1, 1_000)
    assert gathering.holds(1, 5_000)
    gathering.applied(["a"], 1, 5_300)
    assert gathering.holds(1, 5_300)
    arrive(gathering, "a", 5_600)
    assert not gathering.holds(2, 5_600)


def test_what_is_applied_and_answers_nobody_ends_the_waiting():
    gathering = of_a_disk()
    gathering.proposed(["a"], 1, 1_000)
    gathering.applied([], 1, 5_300)
    assert gathering.until_us == 5_300, "for the turn after this"
    assert not gathering.holds(1, 5_300)


def test_who_is_answered_bit_by_bit_is_waited_for_from_the_first_on():
    gathering = of_a_disk()
    gathering.proposed([*"ab"], 2, 0)
    gathering.applied(["a"], 1, 1_000)
    gathering.applied(["b"], 2, 2_000)
    assert gathering.until_us == 1_000 + GATHER_US
    arrive(gathering, "a", 2_100)
    assert gathering.holds(1, 2_100)
    arrive(gathering, "b", 2_200)
    assert not gathering.holds(2, 2_200)


def test_however_slow_the_disk_the_waiting_is_bounded():
    gathering = of_a_disk(3_000_000)
    gathering.applied(["a"], 1, 0)
    assert gathering.until_us == GATHER_US_MAX
    gathering.proposed(["a"], 2, 0)
    assert gathering.until_us == IN_FLIGHT_US_MAX


def test_many_commands_do_not_wait():
    gathering = of_a_disk()
    gathering.proposed(["a"], 1, 0)
    assert gathering.holds(WAITING_MAX - 1, 1)
    assert not gathering.holds(WAITING_MAX, 2)
    gathering.applied(["a"] * 2 * WAITING_MAX, 1, 10)
    assert not gathering.holds(WAITING_MAX, 11)


def test_a_disk_that_is_quick_again_makes_nobody_wait():
    gathering = of_a_disk()
    for _ in range(LATELY):
        gathering.took(150)
    gathering.proposed(["a"], 1, 1)
    assert not gathering.holds(1, 2)


@pytest.mark.parametrize(
    ("count", "waits"),
    [(1, False), (QUICK_MIN - 1, False), (QUICK_MIN, True), (QUICK_MAX - 1, True), (QUICK_MAX, False), (100, False)],
)
def test_on_a_quick_disk_neither_few_nor_many_are_waited_for(count, waits):
    gathering = of_rounds()
    callers = [f"one of {QUICK_EACH_MAX - 1} commands: {n // (QUICK_EACH_MAX - 1)}" for n in range(count)]
    gathering.proposed(callers, 100, 0)
    assert gathering.holds(1, 1) == waits
    gathering = of_rounds()
    gathering.applied(callers, 100, 0)
    assert gathering.holds(1, 1) == waits
    assert gathering.until_us == (QUICK_COST_US * 3 // 4 if waits else 0)


@pytest.mark.parametrize(("count", "waits"), [(QUICK_EACH_MAX - 1, True), (QUICK_EACH_MAX, False)])
def test_on_a_quick_disk_who_asks_for_many_at_once_is_not_waited_for(count, waits):
    gathering = of_rounds()
    gathering.applied(["a"] * count + ["b"], 100, 0)
    assert gathering.holds(1, 1) == waits


def test_on_a_quick_disk_many_do_not_wait():
    gathering = of_rounds()
    gathering.proposed(["a"] * 8, 100, 0)
    assert gathering.holds(QUICK_MAX - 1, 1)
    assert not gathering.holds(QUICK_MAX, 2)


def test_who_is_not_waited_for_does_not_count():
    gathering = of_rounds()
    gathering.applied([*"aaaab"], 100, 0)
    arrive(gathering, "aaaa", 10)
    assert not gathering.holds(4, gathering.until_us)
    gathering.proposed([*"aaab"], 104, 2_000)
    assert not gathering.holds(1, 2_001), "three, and one who did not come back"


def test_a_leader_no_more_waits_for_nobody():
    gathering = of_a_disk()
    gathering.applied(["a"], 1, 0)
    gathering.end()
    assert gathering.until_us == 0
    assert not gathering.holds(1, 1)
