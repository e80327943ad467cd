"""The order of one node's reports, and the ten-minute strip."""

from __future__ import annotations

from dashboard.history import BAR_MS, BARS_MAX, History
from dashboard.order import BOOTS_MAX, FeedOrder


def test_reports_in_order_are_news_and_none_is_lost() -> None:
    order = FeedOrder()
    assert [order.is_news(1, number) for number in (4, 5, 6)] == [True, True, True]
    assert order.lost == 0


def test_duplicates_and_overtaken_reports_are_old() -> None:
    order = FeedOrder()
    assert [order.is_news(1, number) for number in (4, 4, 3, 5)] == [True, False, False, True]


def test_a_gap_is_counted() -> None:
    order = FeedOrder()
    order.is_news(1, 4)
    order.is_news(1, 9)
    assert order.lost == 4


def test_a_restarted_node_begins_again_and_its_earlier_lives_are_over() -> None:
    order = FeedOrder()
    order.is_news(1, 40)
    assert order.is_news(2, 1)
    assert not order.is_news(1, 41)
    assert order.is_news(2, 2)
    assert order.lost == 0


def test_only_so_many_lives_are_remembered() -> None:
    order = FeedOrder()
    for boot in range(BOOTS_MAX + 1):
        assert order.is_news(boot, 1)
    assert not order.is_news(1, 2), "the oldest that is remembered"
    assert order.is_news(0, 2), "forgotten: taken for a new one"


def test_a_bar_is_the_mean_of_what_was_reported_in_it() -> None:
    history = History()
    history.note(0, 10.0, leaderless=False)
    history.note(BAR_MS - 1, 30.0, leaderless=False)
    history.note(BAR_MS, None, leaderless=False)
    assert history.view()["bars"] == [20.0]


def test_a_time_of_which_nothing_is_known_is_no_zero() -> None:
    history = History()
    history.note(0, 10.0, leaderless=False)
    history.note(3 * BAR_MS, 20.0, leaderless=False)
    assert history.view()["bars"] == [10.0, None, None]


def test_a_moment_without_a_leader_marks_its_own_bar_alone() -> None:
    history = History()
    history.note(0, 10.0, leaderless=False)
    history.note(BAR_MS, None, leaderless=True)
    history.note(BAR_MS + 1, 10.0, leaderless=False)
    history.note(2 * BAR_MS, 40.0, leaderless=False)
    history.note(3 * BAR_MS, 10.0, leaderless=False)
    assert history.view()["leaderless"] == [1], "and none of those that follow"
    assert history.view()["bars"] == [10.0, 10.0, 40.0], "each of what was reported in it"


def test_the_strip_has_a_bound() -> None:
    history = History()
    for place in range(BARS_MAX + 40):
        history.note(place * BAR_MS, 1.0, leaderless=False)
    history.note((BARS_MAX * 1_000_000) * BAR_MS, 1.0, leaderless=False)
    bars = history.view()["bars"]
    assert isinstance(bars, list)
    assert len(bars) < BARS_MAX
