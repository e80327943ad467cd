"""A walk over a table sees it as it was, whatever changes meanwhile, and no page of it is long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.statemachine.tables import Table, Walk

KEYS = st.integers(0, 30)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "change", "put", "remove", "page"]), KEYS), max_size=80)


@given(st.sets(KEYS), STEPS, st.integers(1, 5))
def test_every_row_is_seen_once_as_it_was_and_no_page_is_long(first, steps, limit):
    table: Table[int, list[int]] = Table()
    for key in sorted(first):
        table.add(key, [0])
    walk = Walk(table, tuple, attached=True)
    seen = []
    for number, (what, key) in enumerate(steps, 1):
        if what == "add" and key not in table.rows:
            table.add(key, [number])
        elif what == "change" and key in table.rows:
            table.touch(key)
            table.rows[key][0] = number
        elif what == "put":
            table.put(key, [number])
        elif what == "remove" and key in table.rows:
            table.remove(key)
        elif what == "page" and not walk.over:
            page = walk.page(limit)
            assert len(page) <= 2 * limit
            seen += page
    while not walk.over:
        page = walk.page(limit)
        assert len(page) <= 2 * limit
        seen += page
    assert seen == [(key, (0,)) for key in sorted(first)]


def test_what_has_gone_meanwhile_comes_page_by_page():
    """Old changes are dropped while a snapshot is taken, a hundred thousand of them: all in one page took 500 ms."""
    table: Table[int, int] = Table()
    for key in range(1_000):
        table.add(key, key)
    walk = Walk(table, lambda row: row, attached=True)
    for key in range(1_000):
        table.remove(key)
    pages = []
    while not walk.over:
        pages.append(walk.page(64))
    assert max(map(len, pages)) == 64
    assert [key for page in pages for key, _ in page] == [*range(1_000)]
