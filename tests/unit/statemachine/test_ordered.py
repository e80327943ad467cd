"""Keys in order, against a sorted list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.statemachine import ordered
from coordinator.statemachine.ordered import OrderedKeys


def test_keys_that_come_in_order_leave_full_buckets():
    keys: OrderedKeys[int] = OrderedKeys()
    for key in range(10_000):
        keys.add(key)
    assert [*keys] == [*range(10_000)]
    assert len(keys._buckets) == 1 + (10_000 - 1) // ordered.BUCKET_MAX


@given(st.data(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_it_is_a_sorted_set(data, turned):
    order = (lambda key: -key) if turned else None
    keys: OrderedKeys[int] = OrderedKeys(order, bucket_max=8)
    model: set[int] = set()
    for comes, key in data.draw(st.lists(st.tuples(st.booleans(), st.integers(0, 120)), max_size=250)):
        if comes and key not in model:
            keys.add(key)
            model.add(key)
        elif not comes and key in model:
            keys.remove(key)
            model.remove(key)
    expected = sorted(model, key=order)
    rank = order or (lambda key: key)
    assert [*keys] == expected
    assert len(keys) == len(expected)
    assert len(keys._buckets) <= 2 + len(expected) // 2, "few keys never lie in many buckets"
    for probe in (-1, 0, 13, 60, 121):
        behind = [key for key in expected if rank(key) > rank(probe)]
        assert keys.page(probe, 5) == behind[:5]
        assert [*keys.seek(rank(probe), after=True)] == behind
        assert [*keys.seek(rank(probe))] == [key for key in expected if rank(key) >= rank(probe)]
        low, high = sorted((rank(probe), rank(30)))
        assert keys.count(low, high) == sum(low <= rank(key) < high for key in expected)
        assert keys.count(low, None) == sum(low <= rank(key) for key in expected)
        assert keys.count(high, low) == 0 or low == high
    assert keys.page(None, 3) == expected[:3]
