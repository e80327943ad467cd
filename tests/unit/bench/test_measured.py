"""What is measured is done: a refusal is quick, and would be a good figure."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import statemachine, turn
from coordinator import wire
from coordinator.statemachine.commands import Done, Granted, KeyValue


@pytest.mark.parametrize("size", [1, 32])
@pytest.mark.parametrize(
    ("work", "results"), [("lock", {Granted: 2, Done: 2}), ("write", {Done: 4}), ("read", {KeyValue: 4})]
)
def test_each_request_of_a_turn_is_served(work: str, results: dict[type, int], size: int, tmp_path: Path) -> None:
    cluster = turn.Cluster(tmp_path)
    answers: list[wire.Reply] = []
    for batch in range(4):
        cluster.ask_for(work, size, release=bool(batch % 2))
        cluster.serve()
        answers += cluster.answered()
    assert Counter(type(answer.result) for answer in answers if isinstance(answer, wire.Answer)) == {
        kind: count * size for kind, count in results.items()
    }


def test_each_entry_and_read_of_the_state_machine_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    served: Counter[type] = Counter()
    encode = statemachine._encode

    def counted(what: Any) -> bytes:
        served[type(what)] += 1
        return encode(what)

    driver = statemachine.Driver()
    for name, count in (("PAIRS", 200), ("PUTS", 400), ("READS", 300)):
        monkeypatch.setattr(statemachine, name, count)
    monkeypatch.setattr(statemachine, "_encode", counted)
    driver.lock_pairs_per_s()
    assert (served[Granted], served[Done]) == (200, 200)
    driver.puts_per_s(0)
    assert served[Done] == 600
    driver.reads_per_s()
    assert served[KeyValue] == 300
