"""The first line of the live page: is it well, who leads, what may still fail. Pure: facts in, words out.

Words are pairs of a text and a tag; the tag is "" or "leader" (a node's name that the page sets in the leader's
colour). Nothing here knows where the facts come from, and nothing else makes this sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Words = tuple[tuple[str, str], ...]

LOOKING: Final = "looking"
HEALTHY: Final = "healthy"
DEGRADED: Final = "degraded"
LEADERLESS: Final = "leaderless"
BLIND: Final = "blind"

_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a cluster at one moment. All durations are in milliseconds.

    `silent_ms`: voters that have not reported lately, and for how long. `astray_ms`: those that report and have not
    followed the leader for so long, as who does not hear it: they make good no loss. `waiting`: nodes that host no
    working replica, and what they wait for. `leaderless_ms`: how long no leader has been seen (None: there is one).
    `blind_ms`: how long this process has not heard the feed's Redis, which need not be that of the nodes' mailboxes
    (None: it hears it). `looking`: it has begun to listen so lately that silence means nothing yet.
    """

    voters: Sequence[str]
    leader: str
    term: int
    term_ms: int | None
    silent_ms: Mapping[str, int]
    waiting: Mapping[str, str]
    leaderless_ms: int | None
    blind_ms: int | None
    looking: bool
    astray_ms: Mapping[str, int] = field(default_factory=dict)

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1

    @property
    def answering(self) -> int:
        """Voters whose replica works and reports."""
        return sum(1 for node in self.voters if node not in self.silent_ms and node not in self.waiting)

    @property
    def counting(self) -> int:
        """Of those, the ones that the leader can count on."""
        return self.answering - len(self.astray_ms)


@dataclass(frozen=True, slots=True)
class Sentence:
    """`state` is one of the constants above; `words` the sentence; `detail` the line below it; `notes` what needs
    a person, one line each."""

    state: str
    words: Words
    detail: Words
    notes: tuple[str, ...]


def sentence(standing: Standing) -> Sentence:
    """The sentence for what is known now."""
    state, words = _first_line(standing)
    notes = tuple(f"{node} waits: {why}" for node, why in sorted(standing.waiting.items()) if why)
    return Sentence(state, words, _detail(standing, state), notes)


def _first_line(standing: Standing) -> tuple[str, Words]:
    if standing.blind_ms is not None:
        ago = duration(standing.blind_ms)
        return BLIND, _plain(
            f"Out of sight. The Redis that nodes report on has not answered for {ago}; nothing below is live."
        )
    if standing.looking:
        return LOOKING, _plain("Looking for the nodes. The first reports are on their way.")
    if not standing.leader:
        return LEADERLESS, _plain(_no_leader(standing))
    if standing.counting < len(standing.voters):
        return DEGRADED, _plain(f"Degraded. {_missing(standing)}; {_after_a_loss(standing)}.")
    return HEALTHY, (("Healthy. ", ""), (standing.leader, "leader"), (f" leads; {_spare(standing)}.", ""))


def _no_leader(standing: Standing) -> str:
    for_ms = "" if standing.leaderless_ms is None else f" for {duration(standing.leaderless_ms)}"
    if standing.answering >= standing.majority:
        return f"No leader{for_ms}. Locks are kept; nobody new is let in."
    answer = f"{standing.answering or 'none'} of {len(standing.voters)} {plural('replica', len(standing.voters))}"
    verb = "answers" if standing.answering <= 1 else "answer"
    if waiting := _that_wait(standing):  # Their nodes do answer, as whoever asks those can see.
        verb += f" ({waiting})"
    need = f"{standing.majority} {'is' if standing.majority == 1 else 'are'} needed"
    return f"No leader{for_ms}: {answer} {verb}, {need}. Locks are kept; nobody new is let in."


def _missing(standing: Standing) -> str:
    silent = sorted(node for node in standing.voters if node in standing.silent_ms)
    said = []
    if len(silent) == 1:
        said.append(f"{silent[0]} has not answered for {duration(standing.silent_ms[silent[0]])}")
    elif silent:
        shortest = min(standing.silent_ms[node] for node in silent)
        said.append(f"{listed(silent)} have not answered for {duration(shortest)}")
    if astray := sorted(standing.astray_ms):
        for_ms = duration(min(standing.astray_ms.values()))
        said.append(f"{listed(astray)} {'has' if len(astray) == 1 else 'have'} not followed the leader for {for_ms}")
    if waiting := _that_wait(standing):
        said.append(waiting)
    return " and ".join(said)


def _that_wait(standing: Standing) -> str:
    """ "node1 waits", "" where no voter's node does."""
    waiting = sorted(node for node in standing.voters if node in standing.waiting and node not in standing.silent_ms)
    return f"{listed(waiting)} {'waits' if len(waiting) == 1 else 'wait'}" if waiting else ""


def _after_a_loss(standing: Standing) -> str:
    spare = standing.counting - standing.majority
    return "one more loss stops the cluster" if spare <= 0 else _spare(standing)


def _spare(standing: Standing) -> str:
    spare = standing.counting - standing.majority
    if spare <= 0:
        return "a loss stops the cluster"
    return f"{counted(spare)} more {plural('node', spare)} can be lost"


def _detail(standing: Standing, state: str) -> Words:
    if state in (LOOKING, BLIND) or not standing.voters:
        return ()
    parts: list[tuple[str, str]] = []
    if standing.leader and state != HEALTHY:
        parts += [(standing.leader, "leader"), (" leads · ", "")]
    total = len(standing.voters)
    verb = "answers" if standing.answering == 1 else "answer"
    text = f"{standing.answering} of {total} {plural('replica', total)} {verb} · term {standing.term}"
    if standing.term_ms is not None:
        text += f" for {duration(standing.term_ms, whole=True)}"
    return (*parts, (text, ""))


def _plain(text: str) -> Words:
    return ((text, ""),)


def duration(ms: int, *, whole: bool = False) -> str:
    """A length of time for a reader: "0.8 s", "12 s", "3 min 12 s", "5 h 3 min", "2 d 4 h". `whole`: no tenths."""
    tenths = max(0, ms) // 100
    if tenths < 100 and not whole:
        return f"{tenths // 10}.{tenths % 10} s"
    seconds = tenths // 10
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def counted(number: int) -> str:
    """A small number as a word, a large one in figures."""
    return _NUMBERS[number] if 0 <= number < len(_NUMBERS) else str(number)


def plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}s"


def listed(names: Sequence[str]) -> str:
    """ "node1", "node1 and node2", "node1, node2 and node3"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
