"""Watchers: each reads the changes of a range from where it stopped, page by page, whoever leads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.client import errors, watches
from coordinator.client.errors import ConclaveError
from coordinator.statemachine.files import ChangePage, Compacted, RangeView, ReadChanges, ReadRange
from tests.simulation.clients import Client, Script, Sleep
from tests.simulation.history import Question
from tests.simulation.mixed.asking import Act
from tests.simulation.mixed.reads import EVERYTHING

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

SPANS: Final = (
    EVERYTHING,
    EVERYTHING,
    ("t", "", True),
    ("t/a", "t/b", False),
    ("n", "", True),
    ("e", "", False),
    ("q", "", True),
)
WAITS_US: Final = (100_000, 400_000, 1_500_000)
PAUSE_US_MAX: Final = 250_000
SLOW_US_MAX: Final = 2_000_000
"""Of a reader that is too slow, and may find that its place is gone."""


class Watcher:
    """A range, how it is read, and where: nothing that it wants lies before (`since`, `skip`) that it has not had."""

    def __init__(self, client: Client, span: tuple[str, str, bool], since: int) -> None:
        random = client.random
        self.client = client
        self.life = client.lives
        self.span = span
        self.since = since
        self.skip = 0
        self.limit = random.choice((0, 1, 1, 2, 5))
        self.puts = random.random() < 0.9
        self.deletes = not self.puts or random.random() < 0.8
        self.previous = random.random() < 0.5
        self.pause_us = random.choice((PAUSE_US_MAX, PAUSE_US_MAX, SLOW_US_MAX))
        self.is_patient = since > 0 and random.random() < 0.5
        """Does it wait at the leader, or ask now and then?"""

    @property
    def is_alive(self) -> bool:
        return self.client.is_up and self.client.lives == self.life

    def query(self) -> ReadChanges:
        return ReadChanges(
            *self.span,
            self.since,
            self.skip,
            self.limit,
            self.puts,
            self.deletes,
            self.previous,
        )

    def __repr__(self) -> str:
        return f"the watcher of {self.span} at {self.client.name}"


def watch(mixed: Mixed, client: Client) -> Script:
    """A worker that does nothing else."""
    random = client.random
    since = random.choice((0, 1, 1, max(1, mixed.history.told - mixed.mix.reach)))
    watcher = Watcher(client, random.choice(SPANS), since)
    mixed.watchers.append(watcher)
    while True:
        pause_us = 20_000 if mixed.ending else watcher.pause_us
        yield Sleep(random.randrange(1_000, pause_us))
        if not mixed.ending or mixed.owes(watcher):
            yield from _wait(mixed, watcher) if watcher.is_patient else _look(mixed, watcher)


def _wait(mixed: Mixed, watcher: Watcher) -> Act:
    """Wait for the next changes, at whoever leads, as the client's watches do."""
    client = watcher.client
    now = client.clock.now_us
    query = watcher.query()
    question = mixed.history.ask(client.name, query)
    try:
        page = yield from watches.next_changes(client.core, now, query, now() + client.random.choice(WAITS_US))
    except errors.Compacted:
        yield from _read_anew(mixed, watcher)
    except ConclaveError:
        return
    else:
        mixed.history.answered(question, page, 0)
        _turn_page(mixed, watcher, question)


def _look(mixed: Mixed, watcher: Watcher) -> Act:
    question = yield from mixed.query(watcher.client, watcher.query())
    if isinstance(question.result, ChangePage):
        _turn_page(mixed, watcher, question)
    elif isinstance(question.result, Compacted):
        yield from _read_anew(mixed, watcher)


def _turn_page(mixed: Mixed, watcher: Watcher, question: Question) -> None:
    mixed.world.watch.tell("paged", watcher, question)
    watcher.since, watcher.skip = question.result.since, question.result.skip


def _read_anew(mixed: Mixed, watcher: Watcher) -> Act:
    """It was too slow: it reads everything, and goes on behind that."""
    anew = yield from mixed.query(watcher.client, ReadRange(*watcher.span))
    if isinstance(anew.result, RangeView):
        watcher.since, watcher.skip = anew.result.revision + 1, 0
