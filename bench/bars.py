"""What Conclave's figures are to reach, and whether they do: beside its peers, as ratios of medians in one run; of the
state machine alone, in proportion to what the machine can do. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from bench.figures import digits, markdown
from bench.works import DEATHS

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

    @property
    def text(self) -> str:
        against = f"{self.peer}'s" if self.peer else "as it is"
        return f"{self.work}, {self.callers} callers: {self.of}, {against}"


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
    """Without end where ours, in place of the peer's time, did nothing at all."""
    met: bool

    def to_json(self) -> dict[str, Any]:
        value = self.value if math.isfinite(self.value) else None
        return {**self.bar._asdict(), "text": self.bar.text, "value": value, "met": self.met}


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
    if not theirs[name] or (bar.of == "cpu" and not mine):
        return None  # With nothing to divide by, or a time too short for its clock.
    quotient = float(mine / theirs[name])
    is_rate_as_time = bar.of == "time" and bar.work not in DEATHS
    if not is_rate_as_time:
        return quotient
    return 1 / quotient if quotient else math.inf


def bars_table(outcomes: Iterable[Outcome]) -> str:
    rows = [["bar", "asked", "here", ""]]
    for outcome in outcomes:
        bar = outcome.bar
        asked = f"at least {bar.least:,g}" if bar.least is not None else f"at most {bar.most:,g}"
        rows.append([bar.text, asked, digits(outcome.value, 3), "met" if outcome.met else "**missed**"])
    return markdown(rows)


# --- the state machine alone ----------------------------------------------------------------------

REFERENCE_PER_S: Final = 600_000
"""What the reference loop did where the bars of the state machine were set: a machine at half of it owes half, and one
above it what was set."""
MACHINE_KEYS: Final = 1_000_000
"""Of the snapshot whose time is judged."""


class MachineBar(NamedTuple):
    """A figure of `bench.statemachine`, where the reference loop does REFERENCE_PER_S."""

    figure: str
    least: float | None = None
    most: float | None = None
    scales: bool = True
    """Does it go with how fast the machine is?"""

    def owed(self, reference_per_s: float) -> float:
        """By a machine on which the reference loop does so much."""
        speed = min(1, reference_per_s / REFERENCE_PER_S) if self.scales else 1
        if self.least is not None:
            return self.least * speed
        assert self.most is not None, f"{self.figure} has no bar"
        return self.most / speed

    def is_met(self, value: float, reference_per_s: float) -> bool:
        owed = self.owed(reference_per_s)
        return value >= owed if self.least is not None else value <= owed


MACHINE_BARS: Final = (
    MachineBar("lock_pairs_per_s", least=60_000),
    MachineBar("puts_per_s", least=100_000),
    MachineBar("reads_per_s", least=250_000),
    MachineBar("bytes_per_key", most=700, scales=False),
    MachineBar("snapshot_s", most=6),
    MachineBar("slice_ms_p99", most=5),
)


class MachineOutcome(NamedTuple):
    bar: MachineBar
    value: float
    reference_per_s: float

    @property
    def owed(self) -> float:
        return self.bar.owed(self.reference_per_s)

    @property
    def met(self) -> bool:
        return self.bar.is_met(self.value, self.reference_per_s)

    def to_json(self) -> dict[str, Any]:
        as_set = self.bar.is_met(self.value, REFERENCE_PER_S)
        return {"figure": self.bar.figure, "owed": self.owed, "met": self.met, "met_as_set": as_set}

    @property
    def text(self) -> str:
        how = "at least" if self.bar.least is not None else "at most"
        asked = self.bar.least if self.bar.least is not None else self.bar.most
        as_set = f" ({asked:,g} where the bars were set)" if self.bar.scales else ""
        said = "met" if self.met else "MISSED"
        return f"{self.bar.figure}: {said}, {_said(self.value)}; owed here {how} {_said(self.owed)}{as_set}"


def _said(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def machine_judged(figures: Mapping[str, float], keys: int) -> list[MachineOutcome]:
    """Of one run of `bench.statemachine` with so many keys."""
    outcomes = []
    for bar in MACHINE_BARS:
        if bar.figure == "snapshot_s" and keys != MACHINE_KEYS:
            continue
        outcomes.append(MachineOutcome(bar, figures[bar.figure], figures["reference_per_s"]))
    return outcomes


def machine_report(outcomes: Iterable[MachineOutcome]) -> str:
    """The bars, one a line, and which of them are missed: as they were set, and in proportion."""
    outcomes = [*outcomes]
    below = [outcome.bar.figure for outcome in outcomes if not outcome.bar.is_met(outcome.value, REFERENCE_PER_S)]
    missed = [outcome.bar.figure for outcome in outcomes if not outcome.met]
    return "\n".join(
        [
            *(outcome.text for outcome in outcomes),
            f"short of the figures as they were set: {', '.join(below) or 'none'}",
            f"missed: {', '.join(missed) or 'none'}",
        ]
    )
