"""The client without input, output or clock: questions in, packets out; packets in, answers out.

It finds the leader, sends again what was not answered, keeps sessions alive, and knows until when that can be proven.
Its parts: whom to ask (`routing.py`, `discovery.py`), the calls (`outstanding.py`), sessions (`session_keeper.py`),
grants (`grants.py`), what is kept (`cache.py`), what goes out (`packets.py`) and what comes in (`replies.py`).

The shells (`sync.py`, `aio.py`) own the connections and the waiting; what takes several questions is in `flows.py`.
Times are integer microseconds of one monotonic clock, handed in. Calls are made by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

import msgspec
from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.client.cache import Cache
from coordinator.client.calls import NEVER_US, REDIRECT_US_MIN, Batch, Call, Target
from coordinator.client.discovery import Discovery
from coordinator.client.errors import Busy, Closed, ConclaveError, InvalidRequest, Unavailable, caused
from coordinator.client.grants import Acquisition, Grants
from coordinator.client.outstanding import LOOK_US, Outstanding, given_up
from coordinator.client.packets import Packer, Packet
from coordinator.client.replies import Replies
from coordinator.client.room import ends_something
from coordinator.client.routing import Routing
from coordinator.client.session import Session
from coordinator.client.session_keeper import KEEP_ALIVE_RESEND_US, SessionKeeper
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Command
from coordinator.wire import Channels, Token, WireError

AWAIT_US: Final = 300_000
"""How long an answer to what nobody but the core itself asked is waited for; later it is taken in when it is seen."""
WITHDRAW_US_MAX: Final = 3_600_000_000
"""How long the client goes on trying to give back what it no longer wants; its session's end does it too."""


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Core:
    def __init__(self, token: Token, cluster_name: str, random: Random) -> None:
        self.channels = Channels(token.realm)
        self.reply_channel = self.channels.reply()
        self.cluster_name = cluster_name
        self.routing = Routing(cluster_name)
        self._outstanding = Outstanding(self.routing, random)
        self._calls = self._outstanding.calls
        """By number of the request: questions and waits that are not over."""
        self.room = self._outstanding.room
        self._timed_out = self._outstanding.timed_out
        self.cache = Cache()
        self._keeper = SessionKeeper(self.routing, self._outstanding, self.cache, random, submit=self.submit)
        self.sessions = self._keeper.sessions
        """By time to live in milliseconds: one each, opened once."""
        self._discovery = Discovery(self.routing, self._outstanding)
        self.directories = self._discovery.directories
        """What each node last said of who is there, and when."""
        finish = self._outstanding.finish
        self._grants = Grants(self.routing, random, pause=self.pause, query=self._own_query, finish=finish)
        self._packer = Packer(token, self.channels, self.routing, self._outstanding)
        self._replies = Replies(
            self.routing,
            self._outstanding,
            self._discovery,
            self._keeper,
            self._grants,
            self.cache,
            refusal=self._refusal,
        )
        self._key = token.key
        self._leaders_seen = 0
        """`routing.changes` when the calls were last turned to another leader."""

    @property
    def calls_pending(self) -> int:
        """Questions and waits that are not over."""
        return len(self._calls)

    def awaits_answers(self, now_us: int) -> bool:
        """Is something asked that is not answered, by a caller, or by the core itself a moment ago?"""
        if self._calls or self.cache.holds(now_us):
            return True
        asked_us = max(self._keeper.asked_us, self._discovery.asked_us)
        return now_us < asked_us + AWAIT_US and (self._keeper.awaits or self._discovery.awaits)

    # --- questions --------------------------------------------------------------------------------

    def submit(self, call: Call, now_us: int) -> Call:
        """Send the call's request, again and again, until it is answered or its deadline has come. Raises Busy where
        there is no room for it, and InvalidRequest."""
        call.request_id = self._outstanding.next_id()
        try:
            encoded = wire.encode(call.build(call.request_id))
            wire.check_request(encoded)
        except (OverflowError, UnicodeError, TypeError, ValueError) as error:
            raise caused(InvalidRequest(f"the request can not be encoded: {error}"), error) from error
        self._outstanding.begin(call, encoded, now_us)
        return call

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
        call = Call(build, deadline_us=deadline_us, timed_out=self._outstanding.command_timed_out, persists=persists)
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
            return self._keeper.keep_alive(request_id, act_for, session)

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
        return self._outstanding.wait(until_us, _nothing)

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
        return self._keeper.session(ttl_ms, now_us, deadline_us, persists=persists)

    def guard(self, session: Session, grace_us: int) -> None:
        """The session has expired, for good, once it was in jeopardy for so long (or less, where less was asked for
        before), whether anybody looks or not."""
        self._keeper.guard(session, grace_us)

    def lose_session(self, session: Session) -> None:
        """The cluster says that the session is gone."""
        self._keeper.lose(session)

    def revived(self, session: Session, deadline_us: int) -> Call:
        """Resolves to the session when a leader next confirms it, to None when it is known to be gone."""
        return self._keeper.revived(session, deadline_us)

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
        self._outstanding.finish(call, Unavailable("abandoned"))

    # --- what goes out ----------------------------------------------------------------------------

    def take_packets(self, now_us: int) -> list[Packet]:
        """Everything that is to be sent now."""
        self.give_up(now_us)
        self._grants.ask(now_us)
        by_node: dict[str, Batch] = {}
        leader = self.routing.leader if self.routing.cluster else ""
        waiting = self._outstanding.put_due(by_node, leader, now_us)
        knocks = self._discovery.knock(leader, by_node, now_us)
        if keep_alives := self._keeper.keep_alives(now_us):
            by_node.setdefault(leader, []).extend((request.id, request) for request in keep_alives)
        self._speak_of_cache(leader, by_node, now_us)
        lost = self.routing.wants_probe(now_us) and (waiting or (not leader and (self.sessions or self._asks_leader())))
        # Others may know better than one that does not answer, though Redis counts who listens there.
        is_silent = waiting or (knocks and self._discovery.is_silent(leader, now_us))
        doubtful = leader and (
            (is_silent and now_us >= self.routing.probe_due_us)
            or (self._keeper.asks_in_vain and now_us - self._discovery.asked_us >= KEEP_ALIVE_RESEND_US)
        )
        if lost or doubtful:
            self._discovery.probe(by_node, now_us)
        sure = "" if knocks else self._discovery.surely_there(now_us)
        packets: list[Packet] = []
        for node, requests in by_node.items():
            packets += self._packer.pack(node, requests, self.reply_channel, is_sure=node == sure)
        return packets

    def _asks_leader(self) -> bool:
        """Is something asked of whoever leads, though it may not be due to be sent again for long?"""
        return any(call.target is Target.LEADER for call in self._calls.values())

    def _speak_of_cache(self, leader: str, by_node: dict[str, Batch], now_us: int) -> None:
        """Say what was dropped, and renew what is of use."""
        for node, word in self.cache.take_words():
            by_node.setdefault(node, []).append((word.id, word))
        if leader and now_us >= self.cache.due_us():
            renewal = self.cache.renewal(self._outstanding.next_id(), self.routing.cluster, now_us)
            if renewal is not None:
                by_node.setdefault(leader, []).append((renewal.id, renewal))

    def give_up(self, now_us: int) -> None:
        """End the calls whose deadline has come, and what is kept by a lease that has run out."""
        self.cache.pass_time(now_us)
        if now_us >= self._outstanding.give_up_us:
            self._outstanding.give_up(now_us)
            self._keeper.pass_time(now_us)

    def deadline_us(self, now_us: int) -> int:
        """When the next call is to be given up."""
        return min(self._outstanding.give_up_us, now_us + LOOK_US)

    def due_us(self, now_us: int) -> int:
        """When `take_packets` has something to do next if nothing comes before; it may be too early, never too late."""
        due_us = min(now_us + LOOK_US, self._outstanding.give_up_us, self._grants.due_us(now_us))
        if self._calls:
            due_us = min(due_us, self._discovery.knock_due_us)
        if self.routing.leader and self.routing.cluster:
            if self._calls:
                due_us = min(due_us, self._outstanding.due_us(now_us))
            for session in self.sessions.values():
                if session.renew_due_us < due_us and not session.gone:
                    due_us = session.renew_due_us
            return min(due_us, self.cache.due_us())
        for call in self._calls.values():
            due_us = min(due_us, call.due_us if call.target is Target.NODE else self.routing.probe_due_us)
        if any(not session.gone for session in self.sessions.values()):
            due_us = min(due_us, self.routing.probe_due_us)
        return due_us

    # --- what comes in ----------------------------------------------------------------------------

    def receive(self, packet: bytes, now_us: int) -> None:
        """Take a packet from the client's own channel. What is not signed with this client's key decides nothing."""
        try:
            envelope = wire.open_envelope(packet, wire.REPLY)
        except WireError:
            self._replies.take_refusal(packet, now_us)
            return
        try:
            if envelope.receiver != self.reply_channel:
                raise WireError("receiver")
            wire.verify(envelope, self._key)
            replies = wire.decode_replies(envelope.body)
        except WireError as error:
            self.routing.trouble = (
                f"an answer that claims to come from {envelope.sender!r} was dropped ({error.reason})"
            )
            return
        leader = self.routing.leader
        if envelope.sender == leader or self._outstanding.is_answer_of(leader, replies):
            self._discovery.heard(leader, now_us)
        for reply in replies:
            self._replies.take(envelope.sender, reply, now_us)
        if self.routing.changes != self._leaders_seen:
            self._leaders_seen = self.routing.changes
            self._turn_to(self.routing.leader, now_us)
            self._keeper.renew(now_us + REDIRECT_US_MIN, only_unanswered=True)
            self.cache.another_leader(now_us)

    def _turn_to(self, leader: str, now_us: int) -> None:
        """Another leader was heard of: ask it at once what others were asked and have not answered."""
        for call in self._calls.values():
            if call.target is Target.LEADER and call.sent_to != leader:
                self._outstanding.hurry(call, now_us)

    def _refusal(self, call: Call, reply: wire.Overloaded) -> ConclaveError:
        """What its asker is told of a call that there was no room for."""
        return self.room.busy(reply.message, reply.retry_ms)

    def undelivered(self, packet: Packet, now_us: int) -> None:
        """Redis said that nobody listens to the channel of `packet`."""
        if not packet.node:
            self.routing.trouble = "no node listens on this Redis"
            return
        self.routing.trouble = f"nobody listens to the mailbox of {packet.node}"
        self.routing.doubt(packet.node, now_us)
        for request_id in packet.ids:
            self._keeper.renew_by(request_id, now_us)
            call = self._calls.get(request_id)
            if call is not None and call.target is Target.NODE:
                self._outstanding.finish(call, Unavailable(self.routing.trouble))
            elif call is not None:
                self._outstanding.send_again(call, now_us)
        for call in self._calls.values():
            if call.target is Target.LEADER and call.sent_to == packet.node:
                self._outstanding.send_again(call, now_us)  # It went before, when the node was believed to listen.

    def link_lost(self, error: str, now_us: int) -> None:
        """The connection to Redis is lost; what was on its way may be too."""
        self.routing.trouble = error

    def link_up(self, now_us: int) -> None:
        """Connected (again): everything open is asked again, since answers may have been missed."""
        self.routing.probe_soon(now_us)
        for call in self._calls.values():
            if call.due_us != NEVER_US:
                self._outstanding.send_again(call, now_us)
        self._keeper.renew(now_us)

    # --- ends -------------------------------------------------------------------------------------

    def fail_all(self, error: ConclaveError) -> None:
        """The client is closed; or, where it is not, something went wrong in the middle of its work: what nobody waits
        for goes on then, and is sent again when there is a connection."""
        is_over = isinstance(error, Closed)
        for call in [*self._calls.values()]:
            if is_over or call.background is None:
                self._outstanding.finish(call, given_up(call, error))
        for session in self.sessions.values():
            session.nothing_is_open(but=[call.number for call in self._calls.values() if call.background is session])
        self._outstanding.count_anew()
        self._keeper.nobody_waits()


def _nothing(call: Call) -> None:
    """A waiter for a grant that waited long enough is not an error yet."""
    return
