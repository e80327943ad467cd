"""The window that can not be ordered: it is where it should be, and the picture says so in words."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import pytest

from tests.linearizability import KeyValueModel, Model, Operation, RegisterModel, Verdict, check, find_window
from tests.linearizability import window as window_module
from tests.linearizability.checker import verify_order
from tests.linearizability.picture import OTHER_ROWS_MAX, describe, draw
from tests.unit.linearizability.histories import misread, simulate, spans

REGISTER, STORE = RegisterModel(), KeyValueModel()


def cut(operations: list[Operation], position: int) -> list[Operation]:
    """The history as it stood right before a position."""
    before = [operation for operation in operations if operation.invoked < position]
    return [
        operation
        if operation.returned is not None and operation.returned < position
        else Operation(
            operation.number,
            operation.process,
            operation.action,
            operation.key,
            operation.argument,
            None,
            operation.invoked,
            None,
        )
        for operation in before
    ]


def text_of(picture: str) -> str:
    return " ".join(" ".join(element.itertext()) for element in ElementTree.fromstring(picture).iter())


class TestWindow:
    def test_it_is_the_first_point_that_no_order_reaches(self) -> None:
        operations = spans(
            (0, 1, "write", 1, True),
            (2, 3, "read", None, 1),
            (4, None, "write", 2, None),
            (5, 10, "write", 3, True),
            (6, 7, "read", None, 4),
            (8, 9, "write", 4, True),
        )
        window = find_window(REGISTER, operations, "")
        assert window.stuck is operations[4]
        assert window.prefix[:2] == operations[:2]
        assert set(window.prefix) <= set(operations[:4])
        assert set(window.in_flight) == {operations[2], operations[3], operations[4]}
        assert set(window.states) <= {1, 2, 3}
        assert window.is_furthest

    @pytest.mark.parametrize("seed", range(40))
    def test_before_it_the_history_is_linearizable_and_with_it_it_is_not(self, seed: int) -> None:
        rng = random.Random(seed)
        model: Model = REGISTER if seed % 2 else STORE
        lost = rng.choice([0, 0.3])
        kind = "register" if seed % 2 else "kv"
        operations = simulate(rng, model=kind, operations=60, clients=6, lost=lost, values=3)
        broken = list(misread(rng, misread(rng, operations)))
        outcome = check(model, broken)
        if outcome.verdict is Verdict.LINEARIZABLE:
            return
        assert outcome.bad_key is not None
        window = find_window(model, broken, outcome.bad_key)
        of_key = [operation for operation in broken if operation.key == outcome.bad_key]
        assert window.is_furthest
        assert window.stuck.returned is not None
        before = cut(of_key, window.stuck.returned)
        assert check(model, before).verdict is Verdict.LINEARIZABLE
        assert check(model, cut(of_key, window.stuck.returned + 1)).verdict is Verdict.NOT_LINEARIZABLE
        answered = {operation.number for operation in before if not operation.outcome_is_unknown}
        assert answered <= {operation.number for operation in window.prefix}
        placed = {operation.number for operation in window.prefix}
        as_seen = [operation for operation in of_key if operation.number in placed or operation.number in answered]
        verify_order(model, as_seen, window.prefix)

    def test_its_search_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(window_module, "STEPS_MAX", 100)
        rng = random.Random(7)
        operations = simulate(rng, model="register", operations=400, clients=10, values=None)
        broken = [*operations, *spans((10_000, 10_001, "read", None, -1), first_number=len(operations))]
        window = find_window(REGISTER, broken, "")
        assert not window.is_furthest
        assert "was cut short" in text_of(draw(window, title="a"))


class TestPicture:
    def test_it_says_in_words_what_is_wrong(self) -> None:
        operations = spans((0, 1, "write", 1, True), (2, 4, "read", None, None), (3, None, "cas", (7, 8), None))
        words = text_of(draw(find_window(REGISTER, operations, ""), title="a.log"))
        assert "a.log: not linearizable" in words
        assert "Stuck at: read → nil (process 1)." in words
        assert "The longest order holds 1 operations" in words
        assert "It may leave the state 1:" in words
        assert "1. process 0: write 1." in words
        assert "fits nowhere: process 1: read → nil." in words
        assert "in flight: process 2: cas [7 8] (no answer)." in words

    def test_what_it_shows_is_fit_for_xml_and_short(self) -> None:
        long = "<&\0\x1b" + "z" * 5_000 + "the end"
        operations = spans((0, 1, "put", long, True), (2, 3, "get", None, "other"), key="<k>")
        picture = draw(find_window(STORE, operations, "<k>"), title="<a>.txt")
        assert 'key "<k>": not linearizable' in text_of(picture)
        assert "the end" in text_of(picture)
        assert len(picture) < 20_000

    def test_it_is_drawn_within_bounds_whatever_is_in_flight(self) -> None:
        lost = [(at, None, "write", at, None) for at in range(500)]
        operations = spans(*lost, (600, 601, "read", None, -1))
        picture = draw(find_window(REGISTER, operations, ""), title="a")
        assert picture.count("<rect class=") == OTHER_ROWS_MAX + 1
        assert f"In flight too and not drawn: {500 - OTHER_ROWS_MAX} operations." in text_of(picture)

    def test_nothing_is_drawn_outside_the_frame(self) -> None:
        rng = random.Random(8)
        operations = simulate(rng, model="kv", operations=300, clients=10, values=None)
        outcome = check(STORE, broken := misread(rng, operations, after=0.5))
        assert outcome.bad_key is not None
        root = ElementTree.fromstring(draw(find_window(STORE, broken, outcome.bad_key), title="a"))
        width, height = float(root.get("width") or 0), float(root.get("height") or 0)
        for element in root.iter():
            if element.tag.endswith("rect"):
                right = float(element.get("x") or 0) + float(element.get("width") or 0)
                assert right <= width
                assert float(element.get("y") or 0) + float(element.get("height") or 0) <= height


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ((0, 1, "write", 3, True), "write 3"),
        ((0, 1, "read", None, None), "read → nil"),
        ((0, 1, "cas", (None, 2), False), "cas [nil 2] → refused"),
        ((0, None, "append", "a", None), 'append "a" (no answer)'),
        ((0, 1, "acquire", "a", 7), 'acquire "a" → 7'),
    ],
)
def test_an_operation_is_described_in_a_few_words(
    span: tuple[int, int | None, str, object, object], words: str
) -> None:
    (operation,) = spans(span)
    assert describe(operation) == words
