"""What is asked of Conclave's figures, and whether they reach it."""

from __future__ import annotations

from typing import Any

import pytest

from bench.bars import BARS, Bar, bars_table, judged
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
