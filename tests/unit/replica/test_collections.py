"""Garbage collection on a node: a full collection that took long is not to take long again."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections import deque

import pytest

from coordinator.replica.host import COLLECTION_NS_LONG, PROMOTIONS_MAX, YOUNG_NS, _Collections


@pytest.mark.parametrize(
    ("generation", "took_ns", "freezes"),
    [(2, COLLECTION_NS_LONG + 1, 1), (2, COLLECTION_NS_LONG, 0), (1, 10 * COLLECTION_NS_LONG, 0)],
)
def test_what_survived_a_long_full_collection_is_left_out_of_later_ones(
    monkeypatch: pytest.MonkeyPatch, generation: int, took_ns: int, freezes: int
) -> None:
    now_ns = 1
    frozen = []
    monkeypatch.setattr(time, "thread_time_ns", lambda: now_ns)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(now_ns))
    collections = _Collections()
    collections("start", {"generation": generation})
    now_ns += took_ns
    collections("stop", {"generation": generation})
    assert len(frozen) == freezes


@pytest.mark.parametrize(("promotions", "freezes"), [(PROMOTIONS_MAX, 0), (PROMOTIONS_MAX + 1, 1)])
def test_a_full_collection_that_would_take_long_looks_at_nothing(
    monkeypatch: pytest.MonkeyPatch, promotions: int, freezes: int
) -> None:
    frozen = []
    collections = _Collections()
    monkeypatch.setattr(time, "thread_time_ns", lambda: 1)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    seen = 7

    def stats() -> list[dict[str, int]]:
        return [{"collections": 0}, {"collections": seen}, {"collections": 0}]

    monkeypatch.setattr(gc, "get_stats", stats)
    for more in (0, promotions):
        seen += more
        frozen.clear()
        collections("start", {"generation": 2})
        collections("stop", {"generation": 2})
    assert len(frozen) == freezes


def test_a_heap_that_grows_fast_is_never_looked_at_whole() -> None:
    """The real collector: a full collection finds no more than so many promotions' objects."""
    script = """
import gc, sys, time
from coordinator.replica.host import FULL_EVERY, _Collections
gc.collect(); gc.freeze()
gc.set_threshold(*gc.get_threshold()[:2], FULL_EVERY)
gc.callbacks.append(_Collections())
longest = 0
def look(phase, info):
    global longest
    if phase == "start" and info["generation"] == 2:
        longest = max(longest, len(gc.get_objects()))
gc.callbacks.append(look)
kept = [[number] for number in range(1_000_000)]
print(longest)
"""
    longest = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    assert 0 < longest < 120_000


def test_what_takes_the_place_of_older_objects_is_looked_at_in_time() -> None:
    """A history of bounded length frees as many as it makes, which the interpreter takes for nothing new."""
    collections = _Collections()
    history: deque[list[int]] = deque(([number] for number in range(100_000)), maxlen=100_000)
    gc.collect()
    most = 0
    for number in range(300_000):
        history.append([number])
        if number % 1_000 == 0:
            most = max(most, len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1)))
            collections.pass_time(number * YOUNG_NS // 5_000)
    assert most < 20_000
