"""The interval tree against a look through all spans."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.replica.spans import Spans
from coordinator.statemachine.paths import Span, path_order, prefixed, span_of

NAMES = st.text("ab/", min_size=1, max_size=4)
SPANS = st.one_of(
    NAMES.map(prefixed),
    st.just(prefixed("")),
    st.tuples(NAMES, NAMES).map(lambda both: span_of(both[0], both[1], False)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(SPANS, st.booleans()), max_size=40), st.lists(NAMES, min_size=1, max_size=10))
def test_it_finds_what_a_look_through_all_of_them_finds(steps, names):
    spans, model = Spans(), dict[int, Span]()
    for number, (span, removes) in enumerate(steps):
        if removes and model:
            gone = min(model)
            spans.remove(model.pop(gone), gone)
        else:
            spans.add(span, number)
            model[number] = span
        for name in names:
            found = sorted(spans.holding(path_order(name)))
            assert found == sorted(other for other, held in model.items() if held.holds(name))
    assert spans.count == len(set(model.values()))


def test_the_tree_stays_shallow_in_whatever_order_spans_come():
    spans = Spans()
    for number in range(4_096):
        spans.add(prefixed(f"{number:05}/"), number)

    def depth(node) -> int:
        return 0 if node is None else 1 + max(depth(node.left), depth(node.right))

    assert depth(spans._root) <= 5 * 12
    for number in range(4_096):
        assert [*spans.holding(path_order(f"{number:05}/x"))] == [number]
        spans.remove(prefixed(f"{number:05}/"), number)
    assert spans._root is None
