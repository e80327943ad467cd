"""What comes in: of each reply of a node, what it ends, and what is learnt from it.

Part of `core.py`, which has checked that a node signed it for this client; `take_refusal` alone takes what nobody
signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from coordinator import wire
from coordinator.client.cache import Cache
from coordinator.client.calls import REDIRECT_US_MIN, Call, Target
from coordinator.client.discovery import Discovery
from coordinator.client.errors import ConclaveError, from_failure
from coordinator.client.grants import Acquisition, Grants
from coordinator.client.outstanding import Outstanding
from coordinator.client.routing import Routing
from coordinator.client.session_keeper import SessionKeeper
from coordinator.statemachine import commands
from coordinator.wire import WireError


class Said(NamedTuple):
    """A result, and whose word it is: the leader's, and its term."""

    result: commands.Result
    leader: str
    term: int


class Replies:
    def __init__(
        self,
        routing: Routing,
        outstanding: Outstanding,
        discovery: Discovery,
        keeper: SessionKeeper,
        grants: Grants,
        cache: Cache,
        *,
        refusal: Callable[[Call, wire.Overloaded], ConclaveError],
    ) -> None:
        self._routing = routing
        self._outstanding = outstanding
        self._discovery = discovery
        self._keeper = keeper
        self._grants = grants
        self._cache = cache
        self._refusal = refusal
        """What its asker is told of a call that there was no room for."""

    def take(self, node: str, reply: wire.Reply, now_us: int) -> None:
        self._routing.token_is_known()
        if type(reply) is wire.Answer:
            self._routing.served()
            return self._answered(reply.id, reply.result)
        if type(reply) is wire.Told:
            self._routing.served()
            return self._told(node, reply, now_us)
        if type(reply) is wire.Overloaded:
            return self._overloaded(reply)
        self._hear_more(node, reply, now_us)
        return None

    # --- results ----------------------------------------------------------------------------------

    def _answered(self, request_id: int, result: commands.Result) -> None:
        if type(result) is not commands.Failure:
            self._outstanding.resolve(request_id, result)
            return
        kept = self._keeper.forget(request_id)
        if kept is not None:
            if result.code == commands.SESSION_GONE:
                self._keeper.lose(kept)
            return
        call = self._outstanding.calls.get(request_id)
        if call is None:
            return
        if result.code == commands.BUSY:
            # This copy was not applied; an earlier one may have been. It is sent again when it is due, and its deadline
            # then tells the asker what is known.
            self._routing.trouble = result.message
            return
        self._outstanding.finish(call, from_failure(result))

    def _told(self, node: str, reply: wire.Told, now_us: int) -> None:
        self._routing.believe(node, reply.term, now_us)
        if isinstance(reply.result, commands.Failure):
            self._answered(reply.id, reply.result)
        else:
            self._outstanding.resolve(reply.id, Said(reply.result, node, reply.term))

    def _overloaded(self, reply: wire.Overloaded) -> None:
        """There was no room for one copy. Where no other was ever sent its asker is told so at once; else it goes on,
        since another may have been applied."""
        self._keeper.forget(reply.id)
        call = self._outstanding.calls.get(reply.id)
        if call is None:
            return
        self._routing.trouble = reply.message
        if call.sends == 1 and not call.persists:
            self._outstanding.finish(call, self._refusal(call, reply))

    # --- what is no result, and comes less often than those ---------------------------------------

    def _hear_more(self, node: str, reply: wire.Reply, now_us: int) -> None:
        match reply:
            case wire.Directory():
                self._learn(reply, now_us)
                self._discovery.take(node, reply, now_us)
                self._outstanding.resolve(reply.id, reply)
            case wire.NotLeader(request_id, leader):
                self._redirected(node, request_id, leader, now_us)
            case wire.KeptAlive(request_id, session, _):
                self._keeper.kept_alive(request_id, session, reply)
            case wire.OtherTerm(request_id, term):
                self._keeper.other_term(request_id, term, now_us)
            case wire.HoldBroken(cluster, broken):
                if cluster == self._routing.cluster:
                    self._keeper.hold_broken(broken)
            case wire.GrantPushed() | wire.CachedAnswer() | wire.Invalidation() | wire.CacheRenewed():
                self._hear(node, reply, now_us)
            case wire.Progress(request_id):
                self._routing.believe(node, reply.term, now_us)
                self._outstanding.resolve(request_id, reply)
            case wire.StatusAnswer(request_id, report):
                self._outstanding.resolve(request_id, report)
            case wire.Confirmed(request_id, term):
                self._routing.believe(node, term, now_us)
                self._outstanding.resolve(request_id, (node, term))

    def _learn(self, directory: wire.Directory, now_us: int) -> None:
        """Where another cluster has the name now, restored from a backup or made again, what this client was told is no
        longer so: it may hold nothing any more of what its sessions held."""
        before = self._routing.cluster
        self._routing.learn(directory, now_us)
        if before and self._routing.cluster != before:
            for session in self._keeper.sessions.values():
                self._keeper.lose(session)

    def _redirected(self, node: str, request_id: int, leader: str, now_us: int) -> None:
        self._routing.redirected(node, leader, now_us)
        self._keeper.renew_by(request_id, now_us + REDIRECT_US_MIN)
        call = self._outstanding.calls.get(request_id)
        if call is not None:
            if leader:
                self._routing.trouble = f"{node} does not lead, it names {leader}"
            else:  # So says a leader, too, to whom it does not know: it may not know them yet.
                why = "does not lead and knows of no leader, or knows no such token (yet) in this cluster"
                self._routing.trouble = f"{node} {why}"
            self._outstanding.hurry(call, now_us)

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
                self._cache.take(node, self._routing.cluster, reply)
                self._answered(request_id, result)
            case wire.Invalidation():
                self._cache.invalidate(node, reply)
            case wire.CacheRenewed():
                self._cache.renewed(node, self._routing.cluster, reply)

    # --- what is not signed -----------------------------------------------------------------------

    def take_refusal(self, packet: bytes, now_us: int) -> None:
        """A node says, unsigned, that it can not answer: nothing is decided by that, but others are asked who leads."""
        try:
            envelope = wire.open_envelope(packet, wire.REFUSAL)
            refusal = wire.decode_refusal(envelope.body)
        except WireError as error:
            self._routing.trouble = f"an answer did not parse ({error.reason})"
            return
        self._routing.trouble = f"{envelope.sender}: {refusal.message}"
        if refusal.code == wire.REFUSED_TOKEN:
            self._routing.token_is_unknown(envelope.sender)
        if envelope.sender == self._routing.leader:
            self._routing.redirected(envelope.sender, "", now_us)
            for call in self._outstanding.calls.values():
                if call.target is Target.LEADER and call.sent_to == envelope.sender:
                    self._outstanding.hurry(call, now_us)
        if refusal.code == wire.REFUSED_WAITING:
            for call in [*self._outstanding.calls.values()]:
                if call.target is Target.NODE and call.node == envelope.sender:
                    self._outstanding.finish(call, refusal)
