"""One question of a worker, through the client's own core and flows, and recorded for the checkers."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from coordinator.client import flows
from coordinator.client.calls import Call
from coordinator.client.errors import ConclaveError, OutcomeUnknown
from coordinator.client.session import Session
from coordinator.statemachine import commands
from coordinator.statemachine.locks import INDEX_BITS
from tests.simulation.clients import Client, Sleep
from tests.simulation.history import ClientHistory, Question

if TYPE_CHECKING:
    from tests.simulation.world import World

_INDEX_MASK: Final = (1 << INDEX_BITS) - 1
Asking = Generator[Call | Sleep, Any, Question]
Act = Generator[Call | Sleep, Any, None]


class Asker:
    def __init__(self, world: World, timeout_us: int, ttls_ms: tuple[int, ...]) -> None:
        self.world = world
        self.timeout_us = timeout_us
        self.ttls_ms = ttls_ms
        self._values = 0
        self._open: dict[str, dict[Question, None]] = {}

    @property
    def history(self) -> ClientHistory:
        return self.world.workload.history

    @property
    def idle(self) -> bool:
        """Is every question answered?"""
        return not any(self._open.values())

    def value(self) -> bytes:
        """A value that nobody writes twice, and that is no number."""
        self._values += 1
        return b"v%d" % self._values

    def session(self, client: Client) -> Generator[Call, Any, Session | None]:
        """A session of the client that is alive; None where there is none to be had."""
        now = client.clock.now_us
        ttl_ms = client.random.choice(self.ttls_ms)
        try:
            session: Session = yield from flows.session(client.core, now, ttl_ms, now() + self.timeout_us)
        except ConclaveError:
            return None
        return session

    def command(self, client: Client, op: commands.ClientOp, own: Session | None = None) -> Asking:
        """Apply `op` once, under `own` or any session of the client."""
        now = client.clock.now_us
        if own is not None:
            question = yield from self.answer(client, op, client.core.command(own, op, now(), now() + self.timeout_us))
            if isinstance(question.error, OutcomeUnknown) and question.error.session_gone:
                client.core.lose_session(own)
            return question
        ttl_ms = client.random.choice(self.ttls_ms)
        question = self._begin(client, op)
        try:
            result = yield from flows.command(client.core, now, op, ttl_ms, now() + self.timeout_us, "")
        except ConclaveError as error:
            self._refused(question, error)
        else:
            self._done(question, result)
        return question

    def query(self, client: Client, query: commands.Query) -> Asking:
        now_us = client.clock.now_us()
        return (yield from self.answer(client, query, client.core.query(query, now_us, now_us + self.timeout_us)))

    def answer(self, client: Client, what: Any, call: Call) -> Asking:
        """What comes of a call that was made. Whoever leaves it in between never knows."""
        question = self._begin(client, what)
        try:
            result = yield call
        except ConclaveError as error:
            self._refused(question, error)
        except BaseException:
            self._open.get(client.name, {}).pop(question, None)
            raise
        else:
            self._done(question, result)
        return question

    # --- the record -------------------------------------------------------------------------------

    def _begin(self, client: Client, what: Any) -> Question:
        question = self.history.ask(client.name, what)
        self._open.setdefault(client.name, {})[question] = None
        return question

    def _done(self, question: Question, result: Any) -> None:
        self.history.answered(question, result, _index_of(result))
        self._open.get(question.client, {}).pop(question, None)
        self.world.watch.tell("answered", question)

    def _refused(self, question: Question, error: ConclaveError) -> None:
        question.error = error
        self._open.get(question.client, {}).pop(question, None)
        self.world.watch.tell("answered", question)

    def gone(self, client: Client) -> None:
        """The client's process has ended: what it had asked stays open for ever."""
        self._open.pop(client.name, None)


def _index_of(result: Any) -> int:
    """The index that an answer names: where it was applied, or the revision that was read."""
    if isinstance(result, commands.Granted):
        return result.token & _INDEX_MASK
    for name in ("index", "revision"):
        if hasattr(result, name):
            return int(getattr(result, name))
    return 0
