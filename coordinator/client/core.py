"""The client without input, output or clock: questions in, packets out; packets in, answers out.

It finds the leader, sends again what was not answered, keeps sessions alive, and knows until when that can be proven.
The shells (`sync.py`, `aio.py`) own the connections and the waiting; what takes several questions is in `flows.py`.
Times are integer microseconds of one monotonic clock, handed in. Calls are made by one thread at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

import msgspec

from coordinator import wire
from coordinator.client.cache import Cache
from coordinator.client.calls import NEVER_US, REDIRECT_US_MIN, Call, Target, resolved
from coordinator.client.errors import (
    Busy,
    Closed,
    ConclaveError,
    InvalidRequest,
    OutcomeUnknown,
    SessionGone,
    Unavailable,
    from_failure,
)
from coordinator.client.grants import Acquisition, Grants
from coordinator.client.room import Room, ends_something
from coordinator.client.routing import Routing
from coordinator.client.session import Session
from coordinator.client.waiting import Waiting
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Command
from coordinator.wire import Channels, Token, WireError

KEEP_ALIVE_RESEND_US: Final = 200_000
BATCH_MAX: Final = 256
"""Requests of one packet."""
WINDOW_BYTES: Final = 2 * 1024 * 1024
WINDOW_CALLS: Final = 2_048
"""Sent and not answered; what is more waits here for its first sending. Sent all at once, it would be sent again while
it waits for its turn at the leader, and again, in place of what has not been sent at all. (A session's numbers go no
further than 4,095 above the lowest that is open.) What persists is not held back, nor counted."""
KNOCK_US: Final = 25_000
"""A leader that owes an answer and was silent for so long is asked whether anyone listens there: the kill of a process
loses what was published in its last millisecond, and Redis says at once when nobody listens any more."""
AWAIT_US: Final = 300_000
"""How long an answer to what nobody but the core itself asked is waited for; later it is taken in when it is seen."""
PATIENT_KNOCK_US: Final = 1_000_000
"""The same where nothing is owed but what may take its time."""
DIRECTORIES_MAX: Final = 256
SESSIONS_MANY: Final = 64
"""Of one client, at which it is warned: each is kept alive, since nobody but its user knows what lives under it."""
WITHDRAW_US_MAX: Final = 3_600_000_000
"""How long the client goes on trying to give back what it no longer wants; its session's end does it too."""

logger = logging.getLogger(__name__)


class Packet(NamedTuple):
    """`node` "": the discovery channel. `ids` of the requests in it, for `undelivered`. `is_sure`: somebody listened
    there a moment ago, and need not be counted again: that costs Redis an answer, and wakes the client for nothing."""

    address: str
    node: str
    channel: str
    data: bytes
    ids: tuple[int, ...]
    is_sure: bool = False


class Said(NamedTuple):
    """A result, and whose word it is: the leader's, and its term."""

    result: commands.Result
    leader: str
    term: int


_Batch = list[tuple[int, wire.Request | msgspec.Raw]]
"""Requests for one node, each with its number."""


class Core:
    def __init__(self, token: Token, cluster_name: str, random: Random) -> None:
        self.channels = Channels(token.realm)
        self.reply_channel = self.channels.reply()
        self.cluster_name = cluster_name
        self.routing = Routing(cluster_name)
        self.sessions: dict[int, Session] = {}
        """By time to live in milliseconds: one each, opened once."""
        self.cache = Cache()
        self.directories: dict[str, tuple[int, wire.Directory]] = {}
        """What each node last said of who is there, and when."""
        self.trouble = ""
        """What last went wrong on the way, for the message of a time-out."""
        self._token_id = token.token_id
        self._key = token.key
        self._random = random
        self._next_id = random.getrandbits(48)
        self._calls: dict[int, Call] = {}
        self.room = Room(random)
        """What of the calls counts there, is counted."""
        self._opening: dict[int, Waiting] = {}
        """By time to live: who waits for the session that is being opened."""
        self._revivals: dict[int, Waiting] = {}
        """By session: who waits for a leader to confirm it."""
        self._guards: dict[int, tuple[Session, int]] = {}
        """By session: for how long it may be in jeopardy before it has expired, in microseconds."""
        self._keep_alives: dict[int, tuple[Session, int]] = {}
        self._leadership = 0
        """The term of the leader that keep-alives are for; 0 until one has told it."""
        self._keep_alive_count = 0
        self._asked_us = -AWAIT_US
        """When the core last asked something of its own."""
        self._probes: dict[int, None] = {}
        self._grants = Grants(self.routing, random, pause=self.pause, query=self._own_query, finish=self._finish)
        self._knock_due_us = NEVER_US
        self._heard: tuple[str, int] = ("", 0)
        """Who last answered as the leader, and when."""
        self._leaders_seen = 0
        # Lower bounds, so that a thousand questions a second do not look at all of those that wait, each time. One that
        # is too early costs a look in vain; none is ever too late.
        self._fresh: list[Call] = []
        """Submitted since the last `take_packets`; due at once."""
        self._send_due_us = NEVER_US
        """Before this no other call is to be sent."""
        self._in_flight = 0
        self._in_flight_bytes = 0
        """Of calls that were sent and are not answered."""
        self._holds_back = False
        """Are there calls that wait for others to be answered, to be sent at all?"""
        self._give_up_us = NEVER_US
        """Before this no call is given up."""

    @property
    def calls_pending(self) -> int:
        """Questions and waits that are not over."""
        return len(self._calls)

    def awaits_answers(self, now_us: int) -> bool:
        """Is something asked that is not answered, by a caller, or by the core itself a moment ago?"""
        return (
            bool(self._calls)
            or self.cache.holds(now_us)
            or (now_us < self._asked_us + AWAIT_US and bool(self._keep_alives or self._probes))
        )

    # --- questions --------------------------------------------------------------------------------

    def submit(self, call: Call, now_us: int) -> Call:
        """Send the call's request, again and again, until it is answered or its deadline has come. Raises Busy where
        there is no room for it, and InvalidRequest."""
        self._next_id += 1
        call.request_id = self._next_id
        call.due_us = now_us
        try:
            encoded = wire.encode(call.build(call.request_id))
            wire.check_request(encoded)
        except (OverflowError, UnicodeError, TypeError, ValueError) as error:
            raise InvalidRequest(f"the request can not be encoded: {error}") from error
        if not call.persists:
            self.room.check(len(encoded))
        call.size = len(encoded)
        call.first = msgspec.Raw(encoded)
        call.first_for = self.routing.cluster
        self._fresh.append(call)
        self._add(call)
        return call

    def _add(self, call: Call) -> None:
        self._calls[call.request_id] = call
        self.room.enter(call)
        if call.deadline_us is not None and call.deadline_us < self._give_up_us:
            self._give_up_us = call.deadline_us

    def _send_again(self, call: Call, due_us: int) -> None:
        """The call is to be sent at `due_us`, and no later than that."""
        call.due_us = due_us
        self._send_due_us = min(self._send_due_us, due_us)

    def _hurry(self, call: Call, now_us: int) -> None:
        """Send it again soon: there is somebody new to ask."""
        self._send_again(call, call.hurried_us(now_us))

    def in_background(self, session: Session, op: commands.ClientOp, now_us: int) -> Call:
        """Apply `op` once, though nobody waits for it: it goes on for WITHDRAW_US_MAX, through whatever ends the
        questions of others, but for the client's own end."""
        call = self.command(session, op, now_us, now_us + WITHDRAW_US_MAX, persists=True)
        call.background = session
        return call

    def command(
        self,
        session: Session,
        op: commands.ClientOp,
        now_us: int,
        deadline_us: int | None,
        act_for: str = "",
        *,
        persists: bool = False,
    ) -> Call:
        """Apply `op` once, under the next number of `session`. Raises Busy and InvalidRequest: then it never is.
        `persists`: it is not given up for want of room, as what ends something never is."""
        number = session.next_number()

        def build(request_id: int) -> wire.Request:
            command = Command(session.session, number, session.acked, op)
            return wire.CommandRequest(request_id, self.routing.cluster, act_for, msgspec.Raw(wire.encode(command)))

        persists = persists or ends_something(op)
        call = Call(build, deadline_us=deadline_us, timed_out=self._command_timed_out, persists=persists)
        call.number = number
        call.when_done(lambda _: session.answered(number))
        try:
            return self.submit(call, now_us)
        except (Busy, InvalidRequest):
            session.answered(number)  # It is never sent, and must not hold up the acknowledging of others.
            raise

    def query(
        self,
        query: commands.Query,
        now_us: int,
        deadline_us: int,
        act_for: str = "",
        *,
        persists: bool = False,
        counts: bool = True,
    ) -> Call:
        """For the last two see `Call`."""

        def build(request_id: int) -> wire.Request:
            return wire.QueryRequest(request_id, self.routing.cluster, act_for, query)

        call = Call(build, deadline_us=deadline_us, timed_out=self._timed_out, persists=persists, counts=counts)
        return self.submit(call, now_us)

    def _own_query(self, query: commands.Query, now_us: int, deadline_us: int, act_for: str) -> Call:
        """Of the core itself, for a call that waits."""
        return self.query(query, now_us, deadline_us, act_for, persists=True, counts=False)

    def cached_query(self, session: Session, query: wire.CachedQuery, now_us: int, deadline_us: int) -> Call:
        """A query whose answer is kept, where the leader allows it."""

        def build(request_id: int) -> wire.Request:
            return wire.CachedQueryRequest(request_id, self.routing.cluster, session.session, query)

        call = self.submit(Call(build, deadline_us=deadline_us, timed_out=self._timed_out), now_us)
        self.cache.asks(call, query)
        return call

    def keep_alive(self, session: int, now_us: int, deadline_us: int, act_for: str = "") -> Call:
        """Keep a session alive that this client does not count the lease of."""

        def build(request_id: int) -> wire.Request:
            return self._keep_alive_request(request_id, act_for, session)

        return self.submit(Call(build, deadline_us=deadline_us, timed_out=self._timed_out, persists=True), now_us)

    def confirm(self, now_us: int, deadline_us: int) -> Call:
        def build(request_id: int) -> wire.Request:
            return wire.ConfirmRequest(request_id, self.routing.cluster)

        return self.submit(Call(build, deadline_us=deadline_us, timed_out=self._timed_out), now_us)

    def ask_leader(self, build: Callable[[int], wire.Request], now_us: int, deadline_us: int) -> Call:
        """Ask whoever leads; only for what may be asked twice."""
        return self.submit(Call(build, deadline_us=deadline_us, timed_out=self._timed_out), now_us)

    def wait_at_leader(
        self, build: Callable[[int], wire.Request], patience_us: int, now_us: int, deadline_us: int
    ) -> Call:
        """Ask whoever leads what may take it `patience_us` to answer; asked again it goes on waiting. Where it may wait
        at all, it waits for room at the leader, too."""
        self.room.check()
        persists = patience_us > 0
        call = Call(
            build, deadline_us=deadline_us, timed_out=self._timed_out, patience_us=patience_us, persists=persists
        )
        return self.submit(call, now_us)

    def pause(self, until_us: int | None) -> Call:
        """Resolves to None at `until_us`, where nobody has finished it before."""
        return self._wait_only(until_us, _nothing)

    def _wait_only(self, deadline_us: int | None, timed_out: Callable[[Call], ConclaveError | None]) -> Call:
        """A call that is never sent: somebody finishes it, or its deadline comes."""
        call = Call(_not_sent, target=Target.NODE, deadline_us=deadline_us, timed_out=timed_out)
        self._next_id += 1
        call.request_id = self._next_id
        call.due_us = NEVER_US
        self._add(call)
        return call

    def ask_node(self, node: str, build: Callable[[int], wire.Request], now_us: int, deadline_us: int) -> Call:
        """Ask one node and nobody else."""
        call = Call(build, target=Target.NODE, node=node, deadline_us=deadline_us, timed_out=self._timed_out)
        return self.submit(call, now_us)

    def directory(self, now_us: int, deadline_us: int) -> Call:
        """Whoever answers first says who is there."""
        call = Call(wire.DirectoryRequest, target=Target.NODE, deadline_us=deadline_us, timed_out=self._timed_out)
        return self.submit(call, now_us)

    # --- sessions ---------------------------------------------------------------------------------

    def live_session(self, ttl_ms: int, now_us: int) -> Session | None:
        """The session for this time to live, where it can be proven alive: then nobody need be asked."""
        session = self.sessions.get(ttl_ms)
        return session if session is not None and session.valid(now_us) else None

    def session(self, ttl_ms: int, now_us: int, deadline_us: int, *, persists: bool = False) -> Call:
        """The session for this time to live, opened where there is none. Resolves to a Session that was alive a moment
        ago, or to None where it turned out to be gone: then ask again. Raises Busy where there is no room to wait for
        it, unless what it is for `persists`."""
        session = self.sessions.get(ttl_ms)
        if session is not None and session.valid(now_us):
            return resolved(session)
        if not persists:
            self.room.check()
        if session is not None and not session.gone:
            return self._revival(session, deadline_us)
        opening = self._opening.get(ttl_ms)
        if opening is None:
            opening = self._opening[ttl_ms] = Waiting(self._finish)
            self._open_session(ttl_ms, now_us)
        return opening.add(self._wait_only(deadline_us, self._timed_out))

    def _open_session(self, ttl_ms: int, now_us: int) -> None:
        nonce = self._random.randbytes(16)

        def build(request_id: int) -> wire.Request:
            command = Command(0, 0, 0, commands.OpenSession(ttl_ms, nonce))
            return wire.CommandRequest(request_id, self.routing.cluster, "", msgspec.Raw(wire.encode(command)))

        question = Call(build, deadline_us=None, timed_out=self._timed_out, persists=True, counts=False)

        def done(answered: Call) -> None:
            outcome = answered.outcome
            if isinstance(outcome, commands.SessionOpened):
                assert answered.first_sent_us is not None
                outcome = self.sessions[ttl_ms] = Session(outcome.session, ttl_ms, answered.first_sent_us)
                self._warn_of_many()
            self._opening.pop(ttl_ms).end(outcome)

        question.when_done(done)
        self.submit(question, now_us)

    def _warn_of_many(self) -> None:
        if len(self.sessions) == SESSIONS_MANY:
            logger.warning(
                "this client keeps %d sessions alive, one for each time to live that it was asked for, until it is"
                " closed: take the ttl from a few fixed values",
                SESSIONS_MANY,
            )

    def _revival(self, session: Session, deadline_us: int) -> Call:
        waiting = self._revivals.setdefault(session.session, Waiting(self._finish))
        return waiting.add(self._wait_only(deadline_us, self._timed_out))

    def _end_revivals(self, session: int, outcome: Session | None) -> None:
        waiting = self._revivals.pop(session, None)
        if waiting is not None:
            waiting.end(outcome)

    def guard(self, session: Session, grace_us: int) -> None:
        """The session has expired, for good, once it was in jeopardy for so long (or less, where less was asked for
        before), whether anybody looks or not."""
        _, known_us = self._guards.get(session.session, (session, grace_us))
        self._guards[session.session] = (session, min(known_us, grace_us))
        self._give_up_us = min(self._give_up_us, session.valid_until_us + grace_us)

    def _end_sessions(self, now_us: int) -> None:
        for number, (session, grace_us) in [*self._guards.items()]:
            ends_us = session.valid_until_us + grace_us
            if not session.gone and now_us < ends_us:
                self._give_up_us = min(self._give_up_us, ends_us)
                continue
            del self._guards[number]
            if not session.gone:
                self.lose_session(session)

    def lose_session(self, session: Session) -> None:
        """The cluster says that the session is gone."""
        session.gone = True
        if session is self.cache.session:
            self.cache.clear()
        self._end_revivals(session.session, None)

    def revived(self, session: Session, deadline_us: int) -> Call:
        """Resolves to the session when a leader next confirms it, to None when it is known to be gone."""
        return resolved(None) if session.gone else self._revival(session, deadline_us)

    def _send_keep_alives(self, now_us: int) -> list[wire.Request]:
        requests: list[wire.Request] = []
        if not (self.routing.leader and self.routing.cluster):
            return requests
        for session in self.sessions.values():
            if now_us < session.renew_due_us or session.gone:
                continue
            self._next_id += 1
            # Each send is a question of its own: a lease counts from the very send that was answered.
            self._keep_alives[self._next_id] = (session, now_us)
            requests.append(self._keep_alive_request(self._next_id, "", session.session))
            session.renew_due_us = now_us + KEEP_ALIVE_RESEND_US
            self._asked_us = now_us
        return requests

    def _keep_alive_request(self, request_id: int, act_for: str, session: int) -> wire.Request:
        """Each has a number of its own, within the leadership that it is for: a copy renews nothing (history 7)."""
        self._keep_alive_count += 1
        term = max(self._leadership, self.routing.term)
        return wire.KeepAliveRequest(request_id, self.routing.cluster, act_for, session, term, self._keep_alive_count)

    def _other_term(self, request_id: int, term: int, now_us: int) -> None:
        self._leadership = max(self._leadership, term)
        kept = self._keep_alives.pop(request_id, None)
        if kept is not None:
            kept[0].renew_due_us = min(kept[0].renew_due_us, now_us)
        call = self._calls.get(request_id)
        if call is not None:
            self._send_again(call, min(call.due_us, now_us))

    # --- grants -----------------------------------------------------------------------------------

    def grant(
        self,
        session: int,
        name: str,
        acquisition: int,
        now_us: int,
        deadline_us: int | None,
        act_for: str = "",
        *,
        ask: bool = False,
    ) -> Call:
        """Resolves to Granted, to NotHeld where the cluster knows of no such waiter, to Broken where its grant was
        taken away by force, or to None at the deadline.

        `ask`: ask at once, since it is not known whether this client was ever put in the queue.
        """
        return self._grants.wait(Acquisition(session, name, acquisition), now_us, deadline_us, act_for, ask=ask)

    def withdraw(self, session: Session, name: str, acquisition: int, number: int, now_us: int) -> None:
        """Give back, or leave the queue of, what was asked for by request `number`, in the background (history 9)."""
        self._grants.forget(Acquisition(session.session, name, acquisition))
        if not session.gone:
            self.in_background(session, commands.CancelAcquire(name, acquisition, number), now_us)

    def abandon(self, call: Call) -> None:
        """Nobody waits for this call any more."""
        self._finish(call, Unavailable("abandoned"))

    # --- what goes out ----------------------------------------------------------------------------

    def take_packets(self, now_us: int) -> list[Packet]:
        """Everything that is to be sent now."""
        self.give_up(now_us)
        self._grants.ask(now_us)
        by_node: dict[str, _Batch] = {}
        leader = self.routing.leader if self.routing.cluster else ""
        waiting = False
        for call in self._take_due(now_us):
            if self._is_beyond_window(call):
                self._holds_back = True
                continue
            if call.target is Target.NODE:
                node = call.node or "*"
            elif leader:
                node = leader
            else:
                waiting = True
                self._send_due_us = now_us
                continue
            if call.sends and call.target is Target.LEADER and call.sent_to == node:
                waiting = True  # No answer from the one believed to lead: others may know better.
            batch = by_node.get(node)
            if batch is None:
                batch = by_node[node] = []
            batch.append((call.request_id, call.request(self.routing.cluster)))
            if not (call.sends or call.persists):
                self._in_flight += 1
                self._in_flight_bytes += call.size
            call.sent(node, now_us, self._random)
            self._send_due_us = min(self._send_due_us, call.due_us)
            if node == leader:
                self._knock_due_us = min(self._knock_due_us, now_us + KNOCK_US)
        knocks = self._knock(leader, by_node, now_us)
        if keep_alives := self._send_keep_alives(now_us):
            by_node.setdefault(leader, []).extend((request.id, request) for request in keep_alives)
        self._speak_of_cache(leader, by_node, now_us)
        lost = self.routing.wants_probe(now_us) and (waiting or (not leader and self.sessions))
        doubtful = waiting and leader and now_us >= self.routing.probe_due_us
        if lost or doubtful:
            self._probe(by_node, now_us)
        heard, heard_us = self._heard
        sure = heard if now_us - heard_us < KNOCK_US and not knocks else ""
        return [
            self._packet(node, part, is_sure=node == sure)
            for node, requests in by_node.items()
            for part in self._parts(requests)
        ]

    def _is_beyond_window(self, call: Call) -> bool:
        if call.sends or call.persists or not self._in_flight:
            return False
        return self._in_flight >= WINDOW_CALLS or self._in_flight_bytes + call.size > WINDOW_BYTES

    def _parts(self, requests: _Batch) -> list[_Batch]:
        """What goes in one packet each."""
        if self.room.bytes <= wire.PACKET_BYTES_TARGET:
            return [requests[i : i + BATCH_MAX] for i in range(0, len(requests), BATCH_MAX)]
        parts: list[_Batch] = [[]]
        size = 0
        for one in requests:
            if size > wire.PACKET_BYTES_TARGET or len(parts[-1]) >= BATCH_MAX:
                parts.append([])
                size = 0
            parts[-1].append(one)
            call = self._calls.get(one[0])
            size += 0 if call is None else call.size
        return parts

    def _speak_of_cache(self, leader: str, by_node: dict[str, _Batch], now_us: int) -> None:
        """Say what was dropped, and renew what is of use."""
        for node, word in self.cache.take_words():
            by_node.setdefault(node, []).append((word.id, word))
        if leader and now_us >= self.cache.due_us():
            self._next_id += 1
            renewal = self.cache.renewal(self._next_id, self.routing.cluster, now_us)
            if renewal is not None:
                by_node.setdefault(leader, []).append((renewal.id, renewal))

    def _take_due(self, now_us: int) -> list[Call]:
        """The calls to be sent now. Whoever takes them lowers `_send_due_us` to when they are due again."""
        fresh, self._fresh = self._fresh, []
        if now_us < self._send_due_us:
            return [call for call in fresh if not call.done]
        self._send_due_us = NEVER_US
        due = []
        for call in self._calls.values():
            if call.due_us <= now_us:
                due.append(call)
            else:
                self._send_due_us = min(self._send_due_us, call.due_us)
        return due

    def _probe(self, by_node: dict[str, _Batch], now_us: int) -> None:
        self._next_id += 1
        self._asked_us = now_us
        self._probes[self._next_id] = None
        while len(self._probes) > 64:
            del self._probes[next(iter(self._probes))]
        by_node.setdefault("*", []).append((self._next_id, wire.DirectoryRequest(self._next_id)))
        self.routing.probed(now_us)

    def _knock(self, leader: str, by_node: dict[str, _Batch], now_us: int) -> bool:
        """Is anyone there? Only Redis' count of listeners matters; the answer is a bonus. True where it is to count."""
        if now_us < self._knock_due_us:
            return False
        owes = leader and any(call.sent_to == leader and not call.done for call in self._calls.values())
        if owes and leader not in by_node:
            self._next_id += 1
            by_node[leader] = [(self._next_id, wire.DirectoryRequest(self._next_id))]
        hurry = any(call.sent_to == leader and not call.patience_us for call in self._calls.values())
        pause_us = KNOCK_US if hurry else PATIENT_KNOCK_US
        self._knock_due_us = now_us + pause_us if owes else NEVER_US
        return bool(owes)

    def _packet(self, node: str, batch: _Batch, *, is_sure: bool) -> Packet:
        ids, requests = zip(*batch, strict=True)
        data = wire.seal(
            self._key, wire.REQUEST, self._token_id, node, wire.encode_requests(self.reply_channel, requests)
        )
        if node == "*":
            return Packet("", "", self.channels.discovery, data, ids)
        return Packet(self.routing.addresses.get(node, ""), node, self.channels.client(node), data, ids, is_sure)

    def give_up(self, now_us: int) -> None:
        """End the calls whose deadline has come, and what is kept by a lease that has run out."""
        self.cache.pass_time(now_us)
        if now_us < self._give_up_us:
            return
        late = []
        self._give_up_us = now_us + 1_000_000
        for call in self._calls.values():
            if call.deadline_us is None:
                continue
            if call.deadline_us <= now_us:
                late.append(call)
            elif call.deadline_us < self._give_up_us:
                self._give_up_us = call.deadline_us
        for call in late:
            self._finish(call, call.timed_out(call))
        self._end_sessions(now_us)
        for request_id, (_, sent_us) in [*self._keep_alives.items()]:
            if now_us - sent_us > 60_000_000:
                del self._keep_alives[request_id]

    def deadline_us(self, now_us: int) -> int:
        """When the next call is to be given up."""
        return min(self._give_up_us, now_us + 1_000_000)

    def due_us(self, now_us: int) -> int:
        """When `take_packets` has something to do next if nothing comes before; it may be too early, never too late."""
        due_us = min(now_us + 1_000_000, self._give_up_us, self._grants.due_us(now_us))
        if self._calls:
            due_us = min(due_us, self._knock_due_us)
        if self.routing.leader and self.routing.cluster:
            if self._calls:
                due_us = min(due_us, now_us if self._fresh else self._send_due_us)
            for session in self.sessions.values():
                if session.renew_due_us < due_us and not session.gone:
                    due_us = session.renew_due_us
            return min(due_us, self.cache.due_us())
        for call in self._calls.values():
            due_us = min(
                due_us, call.due_us if call.target is Target.NODE else max(call.due_us, self.routing.probe_due_us)
            )
        if any(not session.gone for session in self.sessions.values()):
            due_us = min(due_us, self.routing.probe_due_us)
        return due_us

    # --- what comes in ----------------------------------------------------------------------------

    def receive(self, packet: bytes, now_us: int) -> None:
        """Take a packet from the client's own channel. What is not signed with this client's key decides nothing."""
        try:
            envelope = wire.open_envelope(packet, wire.REPLY)
        except WireError:
            self._receive_refusal(packet, now_us)
            return
        try:
            if envelope.receiver != self.reply_channel:
                raise WireError("receiver")
            wire.verify(envelope, self._key)
            replies = wire.decode_replies(envelope.body)
        except WireError as error:
            self.trouble = f"an answer that claims to come from {envelope.sender!r} was dropped ({error.reason})"
            return
        if envelope.sender == self.routing.leader:
            self._heard = (envelope.sender, now_us)
            if self._knock_due_us != NEVER_US:
                self._knock_due_us = max(self._knock_due_us, now_us + KNOCK_US)
        for reply in replies:
            self._take(envelope.sender, reply, now_us)
        if self.routing.changes != self._leaders_seen:
            self._leaders_seen = self.routing.changes
            self._turn_to(self.routing.leader, now_us)
            self.cache.another_leader(now_us)

    def _turn_to(self, leader: str, now_us: int) -> None:
        """Another leader was heard of: ask it at once what others were asked and have not answered."""
        for call in self._calls.values():
            if call.target is Target.LEADER and call.sent_to != leader:
                self._hurry(call, now_us)

    def _receive_refusal(self, packet: bytes, now_us: int) -> None:
        """A node says, unsigned, that it can not answer: nothing is decided by that, but others are asked who leads."""
        try:
            envelope = wire.open_envelope(packet, wire.REFUSAL)
            refusal = wire.decode_refusal(envelope.body)
        except WireError as error:
            self.trouble = f"an answer did not parse ({error.reason})"
            return
        self.trouble = f"{envelope.sender}: {refusal.message}"
        if envelope.sender == self.routing.leader:
            self.routing.redirected(envelope.sender, "", now_us)
            for call in self._calls.values():
                if call.target is Target.LEADER and call.sent_to == envelope.sender:
                    self._hurry(call, now_us)
        if refusal.code == wire.REFUSED_WAITING:
            for call in [*self._calls.values()]:
                if call.target is Target.NODE and call.node == envelope.sender:
                    self._finish(call, refusal)

    def _take(self, node: str, reply: wire.Reply, now_us: int) -> None:
        if type(reply) is wire.Answer:
            return self._answered(reply.id, reply.result, now_us)
        if type(reply) is wire.Told:
            return self._told(node, reply, now_us)
        if type(reply) is wire.Overloaded:
            return self._overloaded(reply)
        self._hear_more(node, reply, now_us)
        return None

    def _hear_more(self, node: str, reply: wire.Reply, now_us: int) -> None:
        """What is no result, and comes less often than those."""
        match reply:
            case wire.Directory():
                self._learn(reply, now_us)
                self.directories[node] = (now_us, reply)
                while len(self.directories) > DIRECTORIES_MAX:
                    del self.directories[next(iter(self.directories))]
                self._probes.pop(reply.id, None)
                self._resolve(reply.id, reply)
            case wire.NotLeader(request_id, leader):
                self._redirected(node, request_id, leader, now_us)
            case wire.KeptAlive(request_id, session, _):
                self._kept_alive(request_id, session, reply)
            case wire.OtherTerm(request_id, term):
                self._other_term(request_id, term, now_us)
            case wire.GrantPushed() | wire.CachedAnswer() | wire.Invalidation() | wire.CacheRenewed():
                self._hear(node, reply, now_us)
            case wire.Progress(request_id):
                self.routing.believe(node, reply.term, now_us)
                self._resolve(request_id, reply)
            case wire.StatusAnswer(request_id, report):
                self._resolve(request_id, report)
            case wire.Confirmed(request_id, term):
                self.routing.believe(node, term, now_us)
                self._resolve(request_id, (node, term))

    def _learn(self, directory: wire.Directory, now_us: int) -> None:
        """Where another cluster has the name now, restored from a backup or made again, what this client was told is no
        longer so: it may hold nothing any more of what its sessions held."""
        before = self.routing.cluster
        self.routing.learn(directory, now_us)
        if before and self.routing.cluster != before:
            for session in self.sessions.values():
                self.lose_session(session)

    def _hear(
        self,
        node: str,
        reply: wire.GrantPushed | wire.CachedAnswer | wire.Invalidation | wire.CacheRenewed,
        now_us: int,
    ) -> None:
        """Of a grant, or of what is kept."""
        match reply:
            case wire.GrantPushed(_, session, name, acquisition, token):
                self._grants.pushed(Acquisition(session, name, acquisition), token, now_us)
            case wire.CachedAnswer(request_id, result):
                self.cache.take(node, self.routing.cluster, reply)
                self._answered(request_id, result, now_us)
            case wire.Invalidation():
                self.cache.invalidate(node, reply)
            case wire.CacheRenewed():
                self.cache.renewed(node, self.routing.cluster, reply)

    def _answered(self, request_id: int, result: commands.Result, now_us: int) -> None:
        if type(result) is not commands.Failure:
            self._resolve(request_id, result)
            return
        kept = self._keep_alives.pop(request_id, None)
        if kept is not None:
            if result.code == commands.SESSION_GONE:
                self.lose_session(kept[0])
            return
        call = self._calls.get(request_id)
        if call is None:
            return
        if result.code == commands.BUSY:
            # This copy was not applied; an earlier one may have been. It is sent again when it is due, and its deadline
            # then tells the asker what is known.
            self.trouble = result.message
            return
        self._finish(call, from_failure(result))

    def _overloaded(self, reply: wire.Overloaded) -> None:
        """There was no room for one copy. Where no other was ever sent its asker is told so at once; else it goes on,
        since another may have been applied."""
        self._keep_alives.pop(reply.id, None)
        call = self._calls.get(reply.id)
        if call is None:
            return
        self.trouble = reply.message
        if call.sends == 1 and not call.persists:
            self._finish(call, self._refusal(call, reply))

    def _refusal(self, call: Call, reply: wire.Overloaded) -> ConclaveError:
        """What its asker is told of a call that there was no room for."""
        return self.room.busy(reply.message, reply.retry_ms)

    def _told(self, node: str, reply: wire.Told, now_us: int) -> None:
        self.routing.believe(node, reply.term, now_us)
        if isinstance(reply.result, commands.Failure):
            self._answered(reply.id, reply.result, now_us)
        else:
            self._resolve(reply.id, Said(reply.result, node, reply.term))

    def _kept_alive(self, request_id: int, session: int, reply: wire.KeptAlive) -> None:
        kept = self._keep_alives.pop(request_id, None)
        if kept is None:
            self._resolve(request_id, reply)
            return
        own, sent_us = kept
        if own.session == session and not own.gone:
            own.confirmed(sent_us)
            self._end_revivals(session, own)

    def _redirected(self, node: str, request_id: int, leader: str, now_us: int) -> None:
        self.routing.redirected(node, leader, now_us)
        kept = self._keep_alives.pop(request_id, None)
        if kept is not None:
            kept[0].renew_due_us = min(kept[0].renew_due_us, now_us + REDIRECT_US_MIN)
        call = self._calls.get(request_id)
        if call is not None:
            self.trouble = f"{node} does not lead" + (f", it names {leader}" if leader else " and knows of no leader")
            self._hurry(call, now_us)

    def undelivered(self, packet: Packet, now_us: int) -> None:
        """Redis said that nobody listens to the channel of `packet`."""
        if not packet.node:
            self.trouble = "no node listens on this Redis"
            return
        self.trouble = f"nobody listens to the mailbox of {packet.node}"
        self.routing.doubt(packet.node, now_us)
        for request_id in packet.ids:
            kept = self._keep_alives.pop(request_id, None)
            if kept is not None:
                kept[0].renew_due_us = now_us
            call = self._calls.get(request_id)
            if call is not None and call.target is Target.NODE:
                self._finish(call, Unavailable(self.trouble))
            elif call is not None:
                self._send_again(call, now_us)
        for call in self._calls.values():
            if call.target is Target.LEADER and call.sent_to == packet.node:
                self._send_again(call, now_us)  # It went before, when the node was believed to listen.

    def link_lost(self, error: str, now_us: int) -> None:
        """The connection to Redis is lost; what was on its way may be too."""
        self.trouble = error

    def link_up(self, now_us: int) -> None:
        """Connected (again): everything open is asked again, since answers may have been missed."""
        self.routing.probe_soon(now_us)
        for call in self._calls.values():
            if call.due_us != NEVER_US:
                self._send_again(call, now_us)
        for session in self.sessions.values():
            session.renew_due_us = now_us

    # --- ends -------------------------------------------------------------------------------------

    def _resolve(self, request_id: int, outcome: object) -> None:
        call = self._calls.get(request_id)
        if call is not None:
            self._finish(call, outcome)

    def _finish(self, call: Call, outcome: object) -> None:
        if self._calls.pop(call.request_id, None) is not None:
            self.room.leave(call)
            if call.sends and not call.persists:
                self._in_flight -= 1
                self._in_flight_bytes -= call.size
            if self._holds_back:
                self._holds_back, self._send_due_us = False, 0
        call.resolve(outcome)

    def fail_all(self, error: ConclaveError) -> None:
        """The client is closed; or, where it is not, something went wrong in the middle of its work: what nobody waits
        for goes on then, and is sent again when there is a connection."""
        is_over = isinstance(error, Closed)
        for call in [*self._calls.values()]:
            if is_over or call.background is None:
                self._finish(call, error)
        for session in self.sessions.values():
            session.nothing_is_open(but=[call.number for call in self._calls.values() if call.background is session])

    def _timed_out(self, call: Call) -> Unavailable:
        return Unavailable(self._why())

    def _command_timed_out(self, call: Call) -> Unavailable:
        if call.first_sent_us is None:
            return Unavailable(self._why())
        return OutcomeUnknown(
            f"sent, and no answer came in time: it may have been applied, or may yet be. {self._why()}"
        )

    def _why(self) -> str:
        if self.routing.known_absent:
            return f"no node here knows a cluster named {self.cluster_name!r}"
        leader = f"{self.routing.leader} is thought to lead" if self.routing.leader else "no leader is known"
        return f"{leader}; last trouble: {self.trouble}" if self.trouble else f"no answer in time; {leader}"


def _not_sent(request_id: int) -> wire.Request:
    raise AssertionError("this call only waits for others and is never sent")


def _nothing(call: Call) -> None:
    """A waiter for a grant that waited long enough is not an error yet."""
    return


__all__ = ["Core", "Packet", "SessionGone"]
