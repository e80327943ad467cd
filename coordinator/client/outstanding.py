"""The calls that are not over: when each is sent, how many are on their way at once, and when it is given up.

Part of `core.py`. All requests have their numbers from here, so that no two have the same.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from coordinator import wire
from coordinator.client.calls import NEVER_US, Batch, Call, Target
from coordinator.client.errors import Closed, ClosedUnanswered, ConclaveError, OutcomeUnknown, Unavailable, caused
from coordinator.client.room import Room
from coordinator.client.routing import Routing

WINDOW_BYTES: Final = 2 * 1024 * 1024
WINDOW_CALLS: Final = 2_048
"""Sent and not answered; what is more waits here for its first sending. Sent all at once, it would be sent again while
it waits for its turn at the leader, and again, in place of what has not been sent at all. (A session's numbers go no
further than 4,095 above the lowest that is open.) What persists is not held back, nor counted."""
LOOK_US: Final = 1_000_000
"""So long at most until it is looked whether a call is to be given up."""


class Outstanding:
    def __init__(self, routing: Routing, random: Random) -> None:
        self.calls: dict[int, Call] = {}
        """By number of the request."""
        self.room = Room(random)
        """What of the calls counts there, is counted."""
        self._routing = routing
        self._random = random
        self._next_id = random.getrandbits(48)
        # Lower bounds, so that a thousand questions a second do not look at all of those that wait, each time. One that
        # is too early costs a look in vain; none is ever too late.
        self._fresh: list[Call] = []
        """Begun since the last `put_due`; due at once."""
        self._send_due_us = NEVER_US
        """Before this no other call is to be sent."""
        self._in_flight = 0
        self._in_flight_bytes = 0
        """Of calls that were sent and are not answered."""
        self._holds_back = False
        """Are there calls that wait for others to be answered, to be sent at all?"""
        self.give_up_us = NEVER_US
        """Before this no call is given up, nor is there anything else that `look_by` was told of."""

    def next_id(self) -> int:
        """The number of one request more."""
        self._next_id += 1
        return self._next_id

    # --- how they begin ---------------------------------------------------------------------------

    def begin(self, call: Call, encoded: bytes, now_us: int) -> None:
        """Send the call's request, at first as it is encoded here, again and again until it is answered or its deadline
        has come. Raises Busy where there is no room for it."""
        if not call.persists:
            self.room.check(len(encoded))
        call.due_us = now_us
        call.size = len(encoded)
        call.first = msgspec.Raw(encoded)
        call.first_for = self._routing.cluster
        self._fresh.append(call)
        self._add(call)

    def wait(self, deadline_us: int | None, timed_out: Callable[[Call], ConclaveError | None]) -> Call:
        """A call that is never sent: somebody finishes it, or its deadline comes."""
        call = Call(_not_sent, target=Target.NODE, deadline_us=deadline_us, timed_out=timed_out)
        self._next_id += 1
        call.request_id = self._next_id
        call.due_us = NEVER_US
        self._add(call)
        return call

    def _add(self, call: Call) -> None:
        self.calls[call.request_id] = call
        self.room.enter(call)
        if call.deadline_us is not None and call.deadline_us < self.give_up_us:
            self.give_up_us = call.deadline_us

    # --- how they are sent ------------------------------------------------------------------------

    def put_due(self, by_node: dict[str, Batch], leader: str, now_us: int) -> bool:
        """Put the requests of the calls that are to be sent now before the nodes that they are for: `leader` ("": none
        is known), the node that was named, or any ("*"). True where one waits for a leader, or was asked of this one
        already."""
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
            batch.append((call.request_id, call.request(self._routing.cluster)))
            if not (call.sends or call.persists):
                self._in_flight += 1
                self._in_flight_bytes += call.size
            call.sent(node, now_us, self._random)
            self._send_due_us = min(self._send_due_us, call.due_us)
        return waiting

    def _take_due(self, now_us: int) -> list[Call]:
        """The calls to be sent now. Whoever takes them lowers `_send_due_us` to when they are due again."""
        fresh, self._fresh = self._fresh, []
        if now_us < self._send_due_us:
            return [call for call in fresh if not call.done]
        self._send_due_us = NEVER_US
        due = []
        for call in self.calls.values():
            if call.due_us <= now_us:
                due.append(call)
            else:
                self._send_due_us = min(self._send_due_us, call.due_us)
        return due

    def _is_beyond_window(self, call: Call) -> bool:
        if call.sends or call.persists or not self._in_flight:
            return False
        return self._in_flight >= WINDOW_CALLS or self._in_flight_bytes + call.size > WINDOW_BYTES

    def send_again(self, call: Call, due_us: int) -> None:
        """The call is to be sent at `due_us`, and no later than that."""
        call.due_us = due_us
        self._send_due_us = min(self._send_due_us, due_us)

    def hurry(self, call: Call, now_us: int) -> None:
        """Send it again soon: there is somebody new to ask."""
        self.send_again(call, call.hurried_us(now_us))

    def due_us(self, now_us: int) -> int:
        """When `put_due` has something to do next, where a leader is known."""
        return now_us if self._fresh else self._send_due_us

    # --- how they end -----------------------------------------------------------------------------

    def is_answer_of(self, leader: str, replies: list[wire.Reply]) -> bool:
        """Does the first of them answer what `leader` was asked, and nobody else? Then it has passed that on."""
        reply = replies[0] if replies else None
        call = self.calls.get(reply.id) if type(reply) is wire.Answer else None
        return call is not None and bool(leader) and call.sent_to == leader and call.sends == 1

    def resolve(self, request_id: int, outcome: object) -> None:
        call = self.calls.get(request_id)
        if call is not None:
            self.finish(call, outcome)

    def finish(self, call: Call, outcome: object) -> None:
        if self.calls.pop(call.request_id, None) is not None:
            self.room.leave(call)
            if call.sends and not call.persists:
                self._in_flight -= 1
                self._in_flight_bytes -= call.size
            if self._holds_back:
                self._holds_back, self._send_due_us = False, 0
        call.resolve(outcome)

    def give_up(self, now_us: int) -> None:
        """End the calls whose deadline has come."""
        late = []
        self.give_up_us = now_us + LOOK_US
        for call in self.calls.values():
            if call.deadline_us is None:
                continue
            if call.deadline_us <= now_us:
                late.append(call)
            elif call.deadline_us < self.give_up_us:
                self.give_up_us = call.deadline_us
        for call in late:
            self.finish(call, call.timed_out(call))

    def count_anew(self) -> None:
        """What was cut off in the middle may have counted a call twice, or one that is over."""
        self.room.calls = self.room.bytes = self._in_flight = self._in_flight_bytes = 0
        for call in self.calls.values():
            self.room.enter(call)
            if call.sends and not call.persists:
                self._in_flight += 1
                self._in_flight_bytes += call.size
        self._send_due_us = self.give_up_us = 0

    def look_by(self, time_us: int) -> None:
        """Something else is to be ended at that time."""
        self.give_up_us = min(self.give_up_us, time_us)

    def timed_out(self, call: Call) -> Unavailable:
        """What the asker of a question is told at its deadline."""
        return Unavailable(self._routing.why())

    def command_timed_out(self, call: Call) -> Unavailable:
        """What the asker of a command is told at its deadline."""
        if call.first_sent_us is None:
            return Unavailable(self._routing.why())
        return OutcomeUnknown(
            f"sent, and no answer came in time: it may have been applied, or may yet be. {self._routing.why()}"
        )


def given_up(call: Call, error: ConclaveError) -> ConclaveError:
    """What the asker of this call is told where it is given up for that reason, with no answer: a command that was sent
    may have been applied."""
    if not call.number or call.first_sent_us is None:
        return error
    if isinstance(error, Closed):
        return ClosedUnanswered()
    return caused(
        OutcomeUnknown(f"sent, and given up before an answer came, so it may have been applied: {error}"), error
    )


def _not_sent(request_id: int) -> wire.Request:
    raise AssertionError("this call only waits for others and is never sent")
