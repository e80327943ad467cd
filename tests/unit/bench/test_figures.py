"""Numbers out of runs: histograms, medians, silences, ratios, the table."""

from __future__ import annotations

import pytest

from bench.figures import (
    AROUND_S,
    Cell,
    Figure,
    Histogram,
    changes_of_owner,
    digits,
    silence_s,
    summary,
    table,
)


def cell(peer: str, value: float, *, work: str = "lock", cpu_us: float | None = None) -> Cell:
    return Cell(peer, 0, work, 16, value, cpu_us)


# --- histograms ---


def test_a_quantile_is_within_a_hundredth_of_the_latency() -> None:
    histogram = Histogram.of_seconds([0.001] * 99 + [0.2])
    assert histogram.count == 100
    assert histogram.quantile_us(0.5) == pytest.approx(1_000, rel=0.011)
    assert histogram.quantile_us(0.99) == pytest.approx(1_000, rel=0.011)
    assert histogram.quantile_us(1.0) == pytest.approx(200_000, rel=0.011)


def test_histograms_of_two_processes_add_up_after_their_way_through_json() -> None:
    one, other = Histogram.of_seconds([0.001, 0.002]), Histogram.of_seconds([0.002, 0.4])
    both = Histogram.from_json(one.to_json()) + Histogram.from_json(other.to_json())
    assert both.buckets == Histogram.of_seconds([0.001, 0.002, 0.002, 0.4]).buckets


def test_no_latency_has_no_quantile() -> None:
    assert Histogram().quantile_us(0.5) is None


# --- figures ---


def test_a_figure_is_the_median_with_the_least_and_the_most() -> None:
    figure = Figure.of([10, 40, 20])
    assert figure == Figure(20, 10, 40, 3)
    assert figure.spread == 0.75
    assert Figure.of([]) is None


def test_an_owner_who_takes_it_again_is_no_change() -> None:
    assert changes_of_owner([(1.0, 7), (2.0, 7), (3.0, 8), (4.0, 7)]) == 2


def test_grants_of_two_processes_are_put_in_their_order() -> None:
    assert changes_of_owner([(1.0, 0), (3.0, 0), (2.0, 1), (4.0, 1)]) == 3
    assert changes_of_owner([]) == 0


# --- deaths ---


def test_the_silence_ends_with_the_successors_first_answer() -> None:
    assert silence_s([9.98, 9.99, 11.2, 11.21, 11.22], 10.0) == pytest.approx(1.2)


def test_an_answer_that_was_on_its_way_is_not_the_successors() -> None:
    assert silence_s([9.99, 10.001, 10.003, 11.2, 11.21], 10.0) == pytest.approx(1.2)


def test_a_pause_before_the_death_is_no_part_of_the_silence() -> None:
    """It ended with an answer that the dead leader had still given, which was counted as its successor's."""
    times = [9.89, 9.90, 10.002, 10.030, *[10.03 + 0.005 * n for n in range(1, 120)]]
    assert silence_s(times, 10.0) == pytest.approx(0.030)


def test_a_silence_that_may_still_last_has_no_length() -> None:
    assert silence_s([9.98, 9.99, 10.001, 10.002], 10.0) is None
    assert silence_s([], 10.0) is None
    assert silence_s([9.99, 10.05, 10.0 + AROUND_S - 0.01], 10.0) is None


def test_a_pause_long_after_the_death_does_not_count() -> None:
    assert silence_s([9.99, 10.06, 10.3, 10.6, 14.0], 10.0) == pytest.approx(0.6)
    assert silence_s([9.99, 10.06, *[10.06 + 0.01 * n for n in range(1, 60)], 14.0], 10.0) == pytest.approx(0.06)


# --- the table ---


def test_ratios_are_of_medians() -> None:
    cells = [cell("etcd", value) for value in (90, 100, 500)] + [cell("ours", value) for value in (900, 1_200, 1_300)]
    ours = next(record for record in summary(cells, "etcd") if record["peer"] == "ours")
    assert (ours["median"], ours["least"], ours["most"], ours["samples"]) == (1_200, 900, 1_300, 3)
    assert ours["ratio"] == 12


def test_a_time_that_is_shorter_is_a_ratio_above_one() -> None:
    cells = [cell("etcd", 1_200, work="failover"), cell("ours", 60, work="failover")]
    assert summary(cells, "etcd")[1]["ratio"] == 20


def test_who_did_nothing_is_no_times_as_fast() -> None:
    assert summary([cell("etcd", 60), cell("ours", 0)], "etcd")[1]["ratio"] == 0
    assert summary([cell("etcd", 0), cell("ours", 60)], "etcd")[1]["ratio"] is None


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.01234, "0.012"), (1.26, "1.3"), (12.4, "12"), (99.7, "100"), (152.8, "153"), (1_302.4, "1,302"), (0, "0")],
)
def test_a_number_is_said_with_two_digits_or_all_before_its_point(value: float, said: str) -> None:
    assert digits(value, 2) == said


def test_without_the_reference_there_is_no_ratio() -> None:
    assert summary([cell("ours", 60)], "etcd")[0]["ratio"] is None


def test_the_table_has_a_row_a_work_and_a_column_a_peer() -> None:
    cells = [cell("etcd", 100, cpu_us=4_000), cell("ours", 1_200, cpu_us=500), cell("ours", 9, work="failover")]
    lines = table(cells, ["ours", "etcd"], "etcd", {"lock": "pairs/s", "failover": "ms"}).splitlines()
    rows = [[text.strip() for text in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["work", "callers", "ours", "etcd"]
    assert rows[2] == ["lock (pairs/s)", "16", "1,200 ±0% **12x**", "100 ±0%"]
    assert rows[3] == ["failover (ms)", "16", "9 ±0%", "-"]
    assert rows[4] == ["CPU s for 100,000 pairs", "16", "50.0 **0.12x**", "400.0"]
    assert len(rows) == 5, "no CPU row where none was read"
    assert len({len(line) for line in lines}) == 1


def test_what_failed_is_said_beside_the_rate() -> None:
    failed = Cell("ours", 0, "lock", 16, 100.0, None, errors=3)
    assert "(3 failed)" in table([failed], ["ours"], "etcd", {"lock": "pairs/s"})
