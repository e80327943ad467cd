"""Where the disk is slow, who was answered is waited for, within bounds; where it is quick, nobody is."""

from __future__ import annotations

from coordinator.replica.gathering import (
    COMMITS_AT_ONCE,
    GATHER_US_MAX,
    IN_FLIGHT_US_MAX,
    REST_COMMITS,
    WAITING_MAX,
    Gathering,
)

COMMIT_US = 4_000


def of_a_disk(commit_us: int = COMMIT_US) -> Gathering:
    gathering = Gathering()
    for _ in range(100):
        gathering.took(commit_us)
    return gathering


def test_on_a_quick_disk_nobody_waits():
    gathering = of_a_disk(400)
    assert not gathering.is_on
    gathering.answers(5, 1, 0)
    assert not gathering.holds(1, 1)
    gathering.proposed(0)
    assert not gathering.holds(1, 1)


def test_a_disk_is_as_slow_as_its_quickest_commit_of_late():
    """Where processors are short a commit takes long on any disk."""
    gathering = of_a_disk(150)
    for number in range(10 * COMMITS_AT_ONCE):
        gathering.took(150 if number % COMMITS_AT_ONCE == 3 else 2_500)
        assert gathering.commit_us == 150
    for _ in range(2 * COMMITS_AT_ONCE):
        gathering.took(2_500)
    assert gathering.commit_us == 2_500
    assert gathering.is_on


def test_a_command_waits_for_all_that_were_answered_and_no_longer():
    gathering = of_a_disk()
    gathering.answers(2, 1, 1_000)
    assert gathering.holds(1, 1_000)
    assert gathering.holds(1, 1_200)
    assert gathering.until_us == 1_000 + COMMIT_US * 3 // 4
    assert not gathering.holds(3, 1_300)
    assert gathering.until_us == 0
    assert not gathering.holds(1, 1_301)


def test_once_half_are_back_the_others_have_as_long_as_these_took():
    gathering = of_a_disk()
    gathering.answers(4, 0, 1_000)
    assert gathering.holds(1, 1_100)
    assert gathering.holds(2, 1_300)
    assert gathering.until_us == 1_600
    assert gathering.holds(3, 1_500), "that is settled once"
    assert gathering.until_us == 1_600
    assert not gathering.holds(3, 1_600)
    gathering.answers(4, 0, 2_000)
    assert gathering.holds(1, 2_001), "most came, so there is no rest"


def test_where_most_stay_away_nobody_is_waited_for_until_many_commits_have_passed():
    gathering = of_a_disk()
    gathering.answers(4, 1, 0)
    until_us = gathering.until_us
    assert gathering.holds(2, until_us - 1)
    assert not gathering.holds(2, until_us)
    rest_us = until_us + REST_COMMITS * gathering.commit_us
    for now_us in (until_us + 1, rest_us - 1):
        gathering.answers(4, 1, now_us)
        assert not gathering.holds(1, now_us)
        gathering.proposed(now_us)
        assert not gathering.holds(1, now_us)
    gathering.answers(4, 1, rest_us)
    assert gathering.holds(1, rest_us)


def test_what_comes_while_entries_are_in_flight_waits_for_them_within_bounds():
    gathering = of_a_disk()
    gathering.proposed(1_000)
    assert gathering.holds(1, 1_001)
    assert gathering.holds(9, 1_000 + 2 * gathering.commit_us - 1)
    assert not gathering.holds(9, 1_000 + 2 * gathering.commit_us)
    gathering.proposed(20_000)
    assert gathering.holds(1, 20_001), "a majority that is slow is no reason for a rest"


def test_an_acknowledgement_ends_the_waiting_for_it_and_begins_that_for_its_callers():
    gathering = of_a_disk()
    gathering.proposed(1_000)
    assert gathering.holds(1, 5_000)
    gathering.answers(1, 1, 5_300)
    assert gathering.holds(1, 5_300)
    assert not gathering.holds(2, 5_600)


def test_however_slow_the_disk_the_waiting_is_bounded():
    gathering = of_a_disk(3_000_000)
    gathering.answers(4, 1, 0)
    assert gathering.until_us == GATHER_US_MAX
    gathering.proposed(0)
    assert gathering.until_us == IN_FLIGHT_US_MAX


def test_many_commands_do_not_wait():
    gathering = of_a_disk()
    gathering.proposed(0)
    assert gathering.holds(WAITING_MAX - 1, 1)
    assert not gathering.holds(WAITING_MAX, 2)
    gathering.answers(2 * WAITING_MAX, 0, 10)
    assert not gathering.holds(WAITING_MAX, 11)


def test_a_disk_that_is_quick_again_makes_nobody_wait():
    gathering = of_a_disk()
    gathering.answers(4, 1, 0)
    for _ in range(100):
        gathering.took(150)
    gathering.proposed(1)
    assert not gathering.holds(1, 2)
