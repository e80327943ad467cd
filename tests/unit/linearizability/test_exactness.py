"""The checker against deciders that are too simple to be wrong, on histories drawn at random."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linearizability import (
    CounterModel,
    History,
    KeyValueModel,
    LockModel,
    Model,
    Operation,
    RegisterModel,
    Verdict,
    check,
)
from tests.linearizability.checker import verify_order
from tests.linearizability.models import INDISTINCT, Lens, SharpLens, State, Traits
from tests.linearizability.oracles import PERMUTED_MAX, by_permutation, by_textbook
from tests.linearizability.search import Search
from tests.unit.linearizability.histories import misread, simulate, spans

REGISTER, STORE, LOCK, COUNTER = RegisterModel(), KeyValueModel(), LockModel(), CounterModel()


class Plain:
    """A model of which the search knows nothing but `initial` and `step`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.initial = model.initial

    def step(self, state: State, operation: Operation) -> tuple[bool, State]:
        return self._model.step(state, operation)

    def traits(self, operation: Operation) -> Traits:
        return Traits(("operation", operation.number))

    def lens(self, operations: Sequence[Operation]) -> Lens:
        return SharpLens()


@st.composite
def histories(draw: st.DrawFn, model: Model, operations_max: int) -> tuple[Operation, ...]:
    """Anything that clients might report of an object, mostly impossible if it is long."""
    history = History()
    open_by: dict[int, str] = {}
    left = draw(st.integers(1, operations_max))
    value = st.integers(0, 2)
    text = st.sampled_from(["", "a", "b", "ab", "ba", "aa"])
    least = draw(st.sampled_from([-1, 0]))
    while left or open_by:
        process = draw(st.integers(0, 3))
        if process not in open_by:
            if not left:
                process = next(iter(open_by))
            else:
                left -= 1
                action = draw(st.sampled_from(ACTIONS[type(model)]))
                argument = draw(st.integers(least, 2) if action == "add" else ARGUMENTS[action])
                open_by[process] = action
                history.invoke(process, action, argument=argument)
                continue
        action = open_by.pop(process)
        if draw(st.integers(0, 3)) == 0:
            history.lose(process)
        elif action in ("add", "value"):
            history.complete(process, draw(st.integers(-1, 4)))
        elif action in ("read", "get"):
            history.complete(process, draw(st.none() | value if action == "read" else text))
        elif action == "acquire":
            history.complete(process, draw(st.none() | st.integers(1, 4)))
        else:
            history.complete(process, draw(st.booleans()) if action in ("cas", "release") else True)
    return history.operations()


ACTIONS = {
    RegisterModel: ["read", "write", "cas"],
    KeyValueModel: ["get", "put", "append"],
    LockModel: ["acquire", "release"],
    CounterModel: ["add", "value"],
}
ARGUMENTS: dict[str, st.SearchStrategy[object]] = {
    "read": st.none(),
    "get": st.none(),
    "write": st.integers(0, 2),
    "cas": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "put": st.sampled_from(["", "a", "b"]),
    "append": st.sampled_from(["", "a", "b"]),
    "acquire": st.sampled_from("abc"),
    "release": st.sampled_from("abc"),
    "value": st.none(),
}


def is_linearizable(model: Model, operations: Sequence[Operation]) -> bool:
    return check(model, operations).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("model", [REGISTER, STORE, LOCK, COUNTER], ids=["register", "store", "lock", "counter"])
class TestOnAnythingReported:
    @settings(max_examples=300, deadline=None)
    @given(data=st.data())
    def test_the_verdict_is_that_of_trying_every_order(self, model: Model, data: st.DataObject) -> None:
        operations = data.draw(histories(model, PERMUTED_MAX - 2))
        assert is_linearizable(model, operations) == by_permutation(model, operations)

    @pytest.mark.long
    @settings(max_examples=300, deadline=None)
    @given(data=st.data())
    def test_the_verdict_is_that_of_the_textbook(self, model: Model, data: st.DataObject) -> None:
        operations = data.draw(histories(model, 14))
        assert is_linearizable(model, operations) == by_textbook(model, operations)

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_what_the_search_knows_of_a_model_changes_no_verdict(self, model: Model, data: st.DataObject) -> None:
        operations = data.draw(histories(model, 10))
        assert is_linearizable(model, operations) == is_linearizable(Plain(model), operations)


def drawn(seed: int) -> tuple[Model, tuple[Operation, ...]]:
    """A history of a true store with many lost operations, some with a read changed."""
    rng = random.Random(seed)
    model_name = rng.choice(["register", "kv"])
    operations = simulate(
        rng,
        model=model_name,
        operations=rng.randrange(6, 15),
        clients=rng.randrange(2, 6),
        lost=rng.choice([0.2, 0.5, 0.8]),
        values=rng.choice([2, 3, None]),
        weights=rng.choice([(3, 1, 1), (1, 1, 2), (2, 0.3, 2)]),
        late=rng.choice([1, 5, 20]),
    )
    for _ in range(seed % 3):
        operations = misread(rng, operations)
    return REGISTER if model_name == "register" else STORE, operations


@pytest.mark.parametrize("part", [*range(3), *(pytest.param(part, marks=pytest.mark.long) for part in range(3, 10))])
def test_the_verdict_is_exact_where_many_operations_have_no_answer(part: int) -> None:
    verdicts = set()
    for seed in range(part * 60, part * 60 + 60):
        model, operations = drawn(seed)
        found = is_linearizable(model, operations)
        assert found == by_textbook(model, operations), seed
        assert found or seed % 3, f"seed {seed}: a true store is linearizable"
        verdicts.add(found)
    assert verdicts == {True, False}


def test_some_of_these_need_lost_operations_to_be_counted() -> None:
    walks = []
    for seed in range(600):
        model, operations = drawn(seed)
        for key in sorted({operation.key for operation in operations}):
            search = Search(model, [operation for operation in operations if operation.key == key])
            while search.advance(10_000) is None:
                pass
            walks.append(search.walks)
    assert max(walks) > 3
    assert walks.count(1) > len(walks) / 2


class TestVerification:
    """What the checker asserts of every order before it says linearizable."""

    operations = spans(
        (0, 1, "write", 1, True), (2, 5, "write", 2, True), (3, 4, "read", None, 1), (6, None, "write", 3, None)
    )

    def test_an_order_that_holds_is_let_pass(self) -> None:
        write_1, write_2, read, lost = self.operations
        verify_order(REGISTER, self.operations, [write_1, read, write_2])
        verify_order(REGISTER, self.operations, [write_1, read, write_2, lost])

    @pytest.mark.parametrize(
        ("order", "defect"),
        [
            ([0, 2], "an operation that returned is missing"),
            ([0, 2, 1, 1], "an operation takes effect twice"),
            ([1, 0, 2], "real time is not kept"),
            ([0, 2, 3, 1], "real time is not kept"),
            ([0, 1, 2], "an operation is placed where it is not legal"),
        ],
    )
    def test_any_other_is_a_defect(self, order: list[int], defect: str) -> None:
        with pytest.raises(AssertionError, match=defect):
            verify_order(REGISTER, self.operations, [self.operations[at] for at in order])

    def test_an_operation_of_another_history_is_a_defect(self) -> None:
        with pytest.raises(AssertionError, match="a strange operation"):
            verify_order(REGISTER, self.operations[:3], [self.operations[at] for at in (0, 2, 1, 3)])


class TestLenses:
    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def test_what_a_lens_no_longer_tells_apart_steps_as_if_it_were_no_state_at_all(self, data: st.DataObject) -> None:
        models: list[Model] = [REGISTER, STORE]
        model = data.draw(st.sampled_from(models))
        operations = data.draw(histories(model, 8))
        lens = model.lens(operations)
        states = [model.initial] + [
            operation.argument[1] if operation.action == "cas" else operation.argument  # type: ignore[index]
            for operation in operations
            if operation.action in ("write", "cas", "put")
        ]
        for state in states:
            until = lens.told_apart_until(state)
            for operation in operations:
                if operation.returned is not None and operation.returned > until:
                    is_legal, after = model.step(state, operation)
                    is_legal_too, after_too = model.step(INDISTINCT, operation)
                    assert is_legal == is_legal_too
                    if is_legal and after != state:
                        assert after == after_too or lens.told_apart_until(after) < operation.returned
