"""What is used within a part of a span, for each that is done in all of it."""

from __future__ import annotations

import pytest

from bench.processes import ENDS_IN_S, each


@pytest.mark.parametrize("span_s", [0.1, 0.3, 3.0])
def test_a_span_that_is_read_a_little_shorter_makes_nothing_cheaper(span_s: float) -> None:
    """At ten operations a millisecond, each of 50 µs."""
    done = round(span_s * 10_000)
    used_us = (span_s - ENDS_IN_S) * 10_000 * 50
    assert each(used_us, done, span_s) == pytest.approx(50)
    assert each(0, 0, span_s) == 0
