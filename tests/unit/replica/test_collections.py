"""Garbage collection on a node: a full collection that took long is not to take long again."""

from __future__ import annotations

import gc
import time

import pytest

from coordinator.replica.host import COLLECTION_NS_LONG, _Collections


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
