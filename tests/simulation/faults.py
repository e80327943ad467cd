"""Which faults befall one seed's cluster, and when: drawn before the run begins, so that a run can be cut down.

Swarm testing (Groce et al. 2012): each seed draws a few kinds of fault and how often each comes. A seed with crashes
alone reaches states that one with everything never does. What a fault does is in `injector`.
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

HORIZON_US: Final = 60_000_000
"""Faults are drawn so far ahead; most runs end long before."""


class Fault(NamedTuple):
    """`who`: "leader", "follower", "any", "all" or "whose" (the one that the moment is of), resolved when it happens,
    with `salt` to choose among several.

    `moment` "": it happens at `at_us`; else it is armed then, and happens right behind the first such moment: "elected"
    (a node became leader), "sent" (a leader sent a round), "kept-alive" (a client was answered a keep-alive), "locked"
    (a client took a lock), "written" (a client's write was acknowledged), "client-gone" (a client died, stands still,
    or can not be heard), "expiring" (a leader wrote the end of sessions), "campaigning" (a node asks for votes, or
    whether it would have them), "refusing" (a follower says that what it was sent does not match its log), "changing"
    (a leader wrote a configuration), "joint" (a joint one), "asking" (a follower asks its leader for a read index).
    """

    at_us: int
    kind: str
    who: str
    duration_us: int
    level: float
    moment: str
    salt: int

    def __str__(self) -> str:
        when = f" at the next {self.moment!r}" if self.moment else ""
        how = f"{self.duration_us / 1e3:.0f} ms, {self.level:.2f}"
        return f"{self.at_us / 1e6:9.6f}s {self.kind} of {self.who}{when}, {how}"


class Kind(NamedTuple):
    """How a kind of fault is drawn. `weight`: how often it comes beside others; durations in milliseconds."""

    name: str
    weight: float
    who: tuple[str, ...]
    duration_ms: tuple[int, int]
    moments: tuple[str, ...] = ("",)
    draws: float = 0.35
    """In which share of the seeds it is there at all."""
    from_the_start: bool = False
    """Does the first come at once, where it is there?"""


ANYONE: Final = ("leader", "follower", "any")
MOSTLY_LEADER: Final = ("leader", "leader", "any")

KINDS: Final = (
    # --- messages
    Kind("loss", 1.0, ("any", "all", "all"), (50, 1_500)),
    Kind("duplication", 1.0, ("any", "all"), (50, 3_000)),
    Kind("reordering", 1.0, ("any", "all"), (50, 2_000)),
    Kind("delay", 1.0, ("any", "all", "leader"), (50, 1_500)),
    Kind("slow-link", 0.8, (*ANYONE, "all"), (100, 3_000), ("", "", "kept-alive")),
    Kind("replay", 0.7, ("all",), (1, 2), ("", "", "elected")),
    Kind("replayed-votes", 2.0, ("any",), (1, 2), ("campaigning",)),
    Kind("replayed-acknowledgements", 1.0, ("any",), (1, 2), ("elected",)),
    Kind("replayed-snapshot", 1.5, ("all",), (1, 2)),
    Kind("replayed-read-answers", 2.0, ("whose",), (1, 2), ("asking",)),
    Kind("flip-in-message", 0.6, ("any", "all"), (50, 1_500)),
    # --- the network
    Kind("partition", 1.0, ("any", "any", "leader"), (100, 2_500), ("", "", "kept-alive", "elected", "changing")),
    Kind("one-way-partition", 0.8, ANYONE, (100, 2_500)),
    Kind(
        "isolated-leader",
        1.0,
        ("leader",),
        (100, 2_500),
        ("", "kept-alive", "locked", "written", "elected", "changing"),
    ),
    Kind("redis-restart", 0.4, ("all",), (5, 400)),
    Kind("lost-connection", 0.7, ANYONE, (1, 50)),
    Kind("deaf", 0.6, MOSTLY_LEADER, (50, 3_000)),
    # --- processes
    Kind("crash", 1.2, ANYONE, (20, 1_500), ("", "", "elected", "kept-alive", "locked", "written", "changing")),
    Kind("crash-before-commit", 1.0, ANYONE, (20, 1_200), ("", "", "changing")),
    Kind("crash-after-early-send", 1.0, ("leader",), (20, 1_500)),
    Kind("crash-within-commit", 0.8, ANYONE, (20, 1_200)),
    Kind("crash-after-commit", 0.8, ANYONE, (20, 1_200), ("", "elected")),
    Kind("crash-while-sending", 0.8, ANYONE, (20, 1_200)),
    Kind("silent-death", 0.5, ANYONE, (100, 2_500)),
    Kind("power-loss", 0.6, ("all",), (20, 1_500), ("", "written", "changing", "changing")),
    Kind("pause", 1.0, MOSTLY_LEADER, (20, 2_500), ("", "", "elected", "kept-alive", "client-gone")),
    Kind("pause-at-a-conflict", 2.0, ("whose",), (30, 1_500), ("refusing",)),
    Kind("stumble", 0.8, MOSTLY_LEADER, (5, 1_500), ("", "", "elected", "changing")),
    Kind("suspend", 0.5, MOSTLY_LEADER, (50, 3_000)),
    Kind("dozing-followers", 2.0, ("all",), (30, 500), ("", "elected", "elected", "elected")),
    Kind("sleeping-leader", 0.8, ("leader",), (700, 3_000), ("", "sent", "sent", "kept-alive", "locked")),
    Kind("deposed-leader-returns", 2.0, ("leader",), (900, 2_500), ("", "written", "written", "locked")),
    Kind("coup", 1.2, ("leader",), (200, 2_000), ("", "kept-alive", "locked", "written")),
    Kind("stall", 0.8, ("leader",), (200, 620), ("", "client-gone", "client-gone")),
    Kind("needed-witness", 2.0, ("leader",), (300, 2_500), ("", "", "elected"), draws=0.5),
    # --- disks
    Kind("failed-fsync", 0.6, ANYONE, (50, 1_500)),
    Kind("full-disk", 0.3, ANYONE, (100, 2_000)),
    Kind("slow-disk", 0.7, MOSTLY_LEADER, (50, 1_500)),
    Kind("stalled-disk", 2.5, ("leader",), (300, 1_500), ("", "elected", "written", "written"), draws=0.5),
    Kind("lost-disk", 0.25, ANYONE, (50, 1_000), draws=0.25),
    Kind("bit-flip", 0.15, ANYONE, (50, 1_000), draws=0.2),
    Kind("flip-in-stored-snapshot", 0.5, ANYONE, (50, 1_000)),
    Kind("flip-in-sent-snapshot", 0.3, ("all",), (1, 2), draws=0.4, from_the_start=True),
    # --- memory
    Kind("memory-flip", 0.5, ANYONE, (1, 2)),
    Kind("doubt", 1.0, ("leader",), (30, 600), ("", "sent", "expiring", "kept-alive")),
    # --- clocks
    Kind("clocks-drift-apart", 1.5, ("leader",), (1_200, 6_000), ("", "locked", "kept-alive", "kept-alive")),
    Kind("wall-clock-jump", 0.3, MOSTLY_LEADER, (50, 5_000)),
    # --- operators
    Kind("transfer", 1.0, MOSTLY_LEADER, (1, 2), ("", "", "sent", "locked")),
    Kind("campaign-request", 0.4, ("follower", "any"), (1, 2)),
    Kind("step-down", 0.3, ("leader",), (1, 2)),
    Kind("new-replica", 1.0, ("any",), (1, 2)),
    Kind("membership-change", 2.5, ("leader",), (1, 2), ("", "", "elected", "locked"), draws=0.5),
    Kind("hasty-promotion", 2.0, ("leader",), (200, 580), draws=0.5),
    Kind("removed-laggard", 2.0, ("leader",), (200, 1_500), draws=0.5),
    # --- clients
    Kind("client-crash", 1.0, ("any",), (20, 1_000), ("", "locked")),
    Kind("client-pause", 1.2, ("any",), (50, 3_000), ("", "locked", "kept-alive")),
    Kind("client-cut", 1.2, ("any",), (100, 6_000), ("", "locked", "kept-alive", "kept-alive")),
    Kind("client-unheard", 2.0, ("any",), (1_200, 5_000), ("", "locked", "kept-alive")),
    Kind("late-keep-alive", 2.0, ("any",), (1_200, 5_000), ("", "locked", "kept-alive")),
    Kind("client-clock-jump", 0.3, ("any",), (50, 2_000)),
    Kind("client-lost-connection", 0.5, ("any",), (5, 500)),
)

KIND_NAMES: Final = tuple(kind.name for kind in KINDS)


def draw(random: Random) -> list[Fault]:
    """The faults of one seed, by time."""
    chosen = [kind for kind in KINDS if random.random() < kind.draws]
    if not chosen:
        chosen = [random.choice(KINDS)]
    changes = any(kind.name == "membership-change" for kind in chosen)
    weights = [kind.weight * random.choice((0.3, 1.0, 3.0)) for kind in chosen]
    mean_us = random.choice((100_000, 200_000, 450_000))
    at_once = [kind for kind in chosen if kind.from_the_start]
    faults: list[Fault] = []
    at_us = 0
    while True:
        at_us += int(random.expovariate(1 / mean_us))
        if at_us > HORIZON_US:
            return faults
        kind = at_once.pop() if at_once else random.choices(chosen, weights)[0]
        low, high = kind.duration_ms
        duration_us = int(1_000 * low * (high / low) ** random.random())
        moment = random.choice(kind.moments)
        if changes and "changing" in kind.moments and random.random() < 0.35:
            moment = random.choice(("changing", "joint"))
        faults.append(
            Fault(
                at_us,
                kind.name,
                random.choice(kind.who),
                duration_us,
                random.random(),
                moment,
                random.getrandbits(16),
            )
        )
