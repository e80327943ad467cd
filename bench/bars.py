"""What Conclave's figures are to reach, as ratios of medians in one run, and whether they do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from bench.figures import markdown

OURS: Final = "conclave"
CPU_CALLERS: Final = 64


class Bar(NamedTuple):
    """Our figure for `work` with `callers`, divided by the peer's, or as it is where `peer` is empty."""

    work: str
    callers: int
    peer: str
    least: float | None = None
    """The ratio (of rates), or our own rate, is to be at least this."""
    most: float | None = None
    """The ratio (of times), or our own time in milliseconds, is to be at most this."""
    of: Literal["rate", "time", "cpu"] = "rate"


BARS: Final = (
    Bar("lock", 1, "etcd", least=2),
    Bar("lock", 1, "floor", most=1.5, of="time"),
    Bar("lock", 16, "etcd", least=12),
    Bar("lock", 64, "etcd", least=12),
    Bar("lock", 64, "redis", least=1),
    Bar("write", 1, "etcd", least=1),
    Bar("write", 1, "floor", most=1.5, of="time"),
    Bar("write", 64, "etcd", least=4),
    Bar("write", 64, "redis-fsync", least=1),
    Bar("write", 256, "etcd", least=5),
    Bar("read", 1, "etcd", least=1),
    Bar("read", 1, "floor", most=1.5, of="time"),
    Bar("read", 64, "etcd", least=4),
    Bar("handover", 16, "", least=1_000),
    Bar("handover", 16, "zookeeper", least=2.5),
    Bar("handover", 16, "etcd", least=12),
    Bar("handover", 16, "redis", least=14),
    Bar("failover", 8, "", most=100, of="time"),
    Bar("failover", 8, "etcd", most=0.1, of="time"),
    Bar("silence", 8, "", most=1_200, of="time"),
    Bar("lock", CPU_CALLERS, "etcd", most=0.25, of="cpu"),
)


class Outcome(NamedTuple):
    bar: Bar
    value: float
    met: bool

    @property
    def text(self) -> str:
        against = f"{self.bar.peer}'s" if self.bar.peer else "as it is"
        return f"{self.bar.work}, {self.bar.callers} callers: {self.bar.of}, {against}"


def judged(records: Iterable[Mapping[str, Any]]) -> list[Outcome]:
    """The bars that `figures.summary` has the figures for."""
    by_cell = {(record["work"], record["callers"], record["peer"]): record for record in records}
    outcomes = []
    for bar in BARS:
        ours = by_cell.get((bar.work, bar.callers, OURS))
        theirs = by_cell.get((bar.work, bar.callers, bar.peer)) if bar.peer else None
        if ours is None or (bar.peer and theirs is None):
            continue
        value = _value(bar, ours, theirs)
        if value is None:
            continue
        met = (bar.least is None or value >= bar.least) and (bar.most is None or value <= bar.most)
        outcomes.append(Outcome(bar, value, met))
    return outcomes


def _value(bar: Bar, ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> float | None:
    name = "cpu_us" if bar.of == "cpu" else "median"
    mine = ours[name]
    if theirs is None:
        return float(mine)
    if not mine or not theirs[name]:
        return None
    quotient = float(mine / theirs[name])
    is_rate_as_time = bar.of == "time" and bar.work not in ("failover", "silence")
    return 1 / quotient if is_rate_as_time else quotient


def bars_table(outcomes: Iterable[Outcome]) -> str:
    rows = [["bar", "asked", "here", ""]]
    for outcome in outcomes:
        bar = outcome.bar
        asked = f"at least {bar.least:,g}" if bar.least is not None else f"at most {bar.most:,g}"
        rows.append([outcome.text, asked, f"{outcome.value:,.3g}", "met" if outcome.met else "**missed**"])
    return markdown(rows)
