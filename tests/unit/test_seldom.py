"""How often the same trouble is logged."""

from __future__ import annotations

from coordinator.seldom import SAID_AGAIN_S, TEXTS_MAX, Seldom


def test_what_is_said_again_and_again_is_due_at_once_and_then_seldom() -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])
    assert seldom.is_due("refused")
    assert not seldom.is_due("refused")
    assert seldom.is_due("no route"), "another trouble is news"
    assert not seldom.is_due("refused"), "and the first is not, where the two take turns"
    now[0] = SAID_AGAIN_S
    assert seldom.is_due("refused")
    assert seldom.over()
    assert not seldom.over()
    assert seldom.is_due("refused"), "it had passed"


def test_a_trouble_that_says_something_else_each_time_fills_no_log() -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])
    due = [number for number in range(3 * TEXTS_MAX) if seldom.is_due(f"attempt {number}")]
    assert due == list(range(TEXTS_MAX))
    now[0] = SAID_AGAIN_S
    assert seldom.is_due("another")
