"""What is asked of Conclave's figures, and whether they reach it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from bench.bars import (
    BARS,
    MACHINE_BARS,
    MACHINE_KEYS,
    REFERENCE_PER_S,
    Bar,
    bars_table,
    judged,
    machine_judged,
    machine_report,
)
from bench.figures import Cell, summary
from bench.peers import MODULES
from bench.works import CALLERS, DEATH_CALLERS, DEATHS, HANDOVER_CALLERS, RATES


def judge(*cells: Cell) -> Any:
    return {outcome.bar: (outcome.value, outcome.met) for outcome in judged(summary(cells, "etcd"))}


def of(work: str, callers: int, peer: str, how: str = "rate") -> Bar:
    return next(bar for bar in BARS if (bar.work, bar.callers, bar.peer, bar.of) == (work, callers, peer, how))


def test_a_rate_is_a_multiple_of_the_peers() -> None:
    found = judge(Cell("conclave", 0, "lock", 64, 8_800, None), Cell("etcd", 0, "lock", 64, 800, None))
    assert found == {of("lock", 64, "etcd"): (pytest.approx(11), False)}


def test_a_time_for_one_entry_is_a_multiple_of_the_floors() -> None:
    found = judge(Cell("conclave", 0, "write", 1, 1_000, None), Cell("floor", 0, "write", 1, 1_400, None))
    assert found == {of("write", 1, "floor", "time"): (pytest.approx(1.4), True)}


def test_a_fail_over_has_a_bar_of_its_own_and_one_against_etcd() -> None:
    found = judge(Cell("conclave", 0, "failover", 8, 120, None), Cell("etcd", 0, "failover", 8, 1_500, None))
    assert found == {
        of("failover", 8, "", "time"): (120, False),
        of("failover", 8, "etcd", "time"): (pytest.approx(0.08), True),
    }


def test_cpu_time_is_a_share_of_etcds() -> None:
    found = judge(Cell("conclave", 0, "lock", 64, 1, 300.0), Cell("etcd", 0, "lock", 64, 1, 1_000.0))
    assert found[of("lock", 64, "etcd", "cpu")] == (pytest.approx(0.3), False)


def test_what_did_not_run_is_not_judged() -> None:
    assert judge(Cell("etcd", 0, "lock", 64, 800, None)) == {}
    assert judge(Cell("conclave", 0, "lock", 64, 800, None)) == {}


def test_who_did_nothing_at_all_has_missed() -> None:
    """It was not judged, so that the table showed no bar that was missed."""
    found = judge(
        Cell("conclave", 0, "write", 1, 0, None),
        Cell("etcd", 0, "write", 1, 1_000, 5.0),
        Cell("floor", 0, "write", 1, 1_400, 5.0),
    )
    assert found == {of("write", 1, "etcd"): (0, False), of("write", 1, "floor", "time"): (math.inf, False)}
    (first, second) = judged(summary([Cell("conclave", 0, "write", 1, 0, None)] + [
        Cell(peer, 0, "write", 1, 1_000, None) for peer in ("etcd", "floor")
    ], "etcd"))  # fmt: skip
    assert "inf" in bars_table([first, second])
    assert json.dumps([first.to_json(), second.to_json()], allow_nan=False)
    assert (first.to_json()["value"], second.to_json()["value"]) == (0, None)
    assert {"work": "write", "callers": 1, "peer": "etcd", "least": 1, "met": False}.items() <= first.to_json().items()


def test_a_peer_that_did_nothing_is_no_measure() -> None:
    assert judge(Cell("conclave", 0, "lock", 64, 800, None), Cell("etcd", 0, "lock", 64, 0, None)) == {}


@pytest.mark.parametrize("bar", BARS)
def test_every_bar_is_about_something_that_is_measured(bar: Bar) -> None:
    callers = {
        **dict.fromkeys(RATES, CALLERS),
        "handover": (HANDOVER_CALLERS,),
        **dict.fromkeys(DEATHS, (DEATH_CALLERS,)),
    }
    assert bar.callers in callers[bar.work]
    assert bar.peer in {"", *MODULES}
    assert (bar.least is None) != (bar.most is None)


def test_the_table_says_which_are_missed() -> None:
    cells = [Cell("conclave", 0, "lock", 64, 8_800, None), Cell("etcd", 0, "lock", 64, 800, None)]
    assert "| lock, 64 callers: rate, etcd's | at least 12 | 11   | **missed** |" in bars_table(
        judged(summary(cells, "etcd"))
    )


# --- the state machine alone ----------------------------------------------------------------------

ENOUGH = {
    "lock_pairs_per_s": 60_000.0,
    "puts_per_s": 100_000.0,
    "reads_per_s": 250_000.0,
    "bytes_per_key": 700.0,
    "snapshot_s": 6.0,
    "slice_ms_p99": 5.0,
}
"""Where the reference loop does what it did there."""


def missed(figures: dict[str, float], reference_per_s: float = REFERENCE_PER_S, keys: int = MACHINE_KEYS) -> list[str]:
    outcomes = machine_judged(figures | {"reference_per_s": reference_per_s}, keys)
    return [outcome.bar.figure for outcome in outcomes if not outcome.met]


def test_what_reaches_every_bar_of_the_state_machine_misses_none() -> None:
    assert missed(ENOUGH) == []
    assert [bar.figure for bar in MACHINE_BARS] == [*ENOUGH]


@pytest.mark.parametrize("figure", ENOUGH)
def test_a_shortfall_is_named(figure: str) -> None:
    worse = ENOUGH[figure] * (0.99 if figure.endswith("_per_s") else 1.01)
    figures = ENOUGH | {figure: worse}
    assert missed(figures) == [figure]
    report = machine_report(machine_judged(figures | {"reference_per_s": REFERENCE_PER_S}, MACHINE_KEYS))
    assert report.splitlines()[-2:] == [f"short of the figures as they were set: {figure}", f"missed: {figure}"]
    assert f"{figure}: MISSED, " in report
    assert report.count("MISSED") == 1


def test_a_machine_at_half_the_reference_owes_half_and_one_above_it_what_was_set() -> None:
    slow = {name: value / 2 if name.endswith("_per_s") else value * 2 for name, value in ENOUGH.items()}
    slow["bytes_per_key"] = 700  # A byte is a byte on every machine.
    assert missed(slow, REFERENCE_PER_S / 2) == []
    assert missed(slow) == ["lock_pairs_per_s", "puts_per_s", "reads_per_s", "snapshot_s", "slice_ms_p99"]
    assert missed(ENOUGH, REFERENCE_PER_S * 2) == []
    assert missed(slow, REFERENCE_PER_S * 2) == missed(slow)


def test_the_record_says_of_each_bar_what_the_report_says() -> None:
    (pairs, *_) = machine_judged(ENOUGH | {"lock_pairs_per_s": 40_000.0, "reference_per_s": 300_000.0}, MACHINE_KEYS)
    assert pairs.to_json() == {"figure": "lock_pairs_per_s", "owed": 30_000, "met": True, "met_as_set": False}


def test_a_snapshot_of_fewer_keys_is_not_judged_by_its_time() -> None:
    assert missed(ENOUGH | {"snapshot_s": 60.0}, keys=1_000) == []


def test_the_report_says_what_is_owed_here_and_what_was_asked() -> None:
    report = machine_report(machine_judged(ENOUGH | {"reference_per_s": 300_000}, MACHINE_KEYS))
    assert "lock_pairs_per_s: met, 60,000; owed here at least 30,000 (60,000 where the bars were set)" in report
    assert report.endswith("missed: none")
