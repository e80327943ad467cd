"""When a node gives its processor up, and when it looks for the next packet instead of falling asleep."""

from __future__ import annotations

import pytest

from coordinator.replica.yielding import (
    FEW_BYTES,
    FEW_PACKETS,
    MANY_NS,
    PAUSE_NS,
    PAUSE_NS_MAX,
    SHORT_NS,
    SHORT_WAITS,
    TOGETHER,
    TOGETHER_NS_MAX,
    Conversation,
    Yielding,
)

SECOND_NS = 1_000_000_000
SLICE_NS = 3_300_000


class Processor:
    """Its time, and how long whoever yields waits for it."""

    def __init__(self) -> None:
        self.now_ns = SECOND_NS
        self.takes_ns = 1_000
        self.count = 0
        self.yielding = Yielding(lambda: self.now_ns, self._yields)

    def _yields(self) -> None:
        self.count += 1
        self.now_ns += self.takes_ns

    def publish(self, times: int, every_ns: int = 0) -> int:
        """How many of these were followed by a yield."""
        before = self.count
        for _ in range(times):
            self.yielding.give_way()
            self.now_ns += every_ns
        return self.count - before


def test_each_packet_is_followed_by_a_yield_while_that_is_quick() -> None:
    processor = Processor()
    assert processor.publish(10 * TOGETHER) == 10 * TOGETHER
    processor.takes_ns = TOGETHER_NS_MAX // TOGETHER  # As long as it may take, each time.
    assert processor.publish(10 * TOGETHER) == 10 * TOGETHER


def test_a_yield_that_took_long_once_is_no_reason_to_stop() -> None:
    processor = Processor()
    for _ in range(50):
        processor.takes_ns = SLICE_NS
        assert processor.publish(1) == 1
        processor.takes_ns = 1_000
        assert processor.publish(TOGETHER - 1) == TOGETHER - 1


def test_beside_a_program_that_never_sleeps_hardly_anything_is_lost() -> None:
    processor = Processor()
    processor.takes_ns = SLICE_NS
    spent_ns = 0
    began_ns = processor.now_ns
    while processor.now_ns - began_ns < 600 * SECOND_NS:
        spent_ns += processor.publish(1, every_ns=500_000) * SLICE_NS
    assert spent_ns < 0.005 * 600 * SECOND_NS, f"{spent_ns / SECOND_NS} s of ten minutes"
    assert processor.count > 20, "it looks again now and then"


def test_pauses_grow_to_a_bound_and_shrink_when_the_program_has_gone() -> None:
    processor = Processor()
    processor.takes_ns = SLICE_NS
    pauses = []
    for _ in range(12):
        assert processor.publish(2) == 2  # 6.6 ms: too much.
        began_ns = processor.now_ns
        while not processor.publish(1):
            processor.now_ns += PAUSE_NS // 10
        pauses.append(processor.now_ns - began_ns)
        processor.publish(1)
        processor.now_ns += PAUSE_NS_MAX
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2 * PAUSE_NS
    assert PAUSE_NS_MAX // 2 < pauses[-1] <= PAUSE_NS_MAX + 2 * PAUSE_NS

    processor.takes_ns = 1_000
    assert processor.publish(20 * TOGETHER) == 20 * TOGETHER
    processor.takes_ns = SLICE_NS
    processor.publish(2)
    processor.now_ns += PAUSE_NS
    assert processor.publish(1) == 1, "the first pause is a short one again"


READY = [(7, 1)]


class Mailbox(Processor):
    """Where packets come some time after the node began to wait; and how often it looked before it fell asleep."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation(self.yielding, lambda: self.now_ns)
        self.comes_ns = 0
        self.looks = 0

    def _poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        assert timeout_ms == 0, "it does not sleep here"
        self.looks += 1
        self.now_ns += 1_000
        return READY if self.now_ns >= self.comes_ns else []

    def wait(self, takes_ns: int, packets: int = 1, size: int = 100, timeout_us: int = 20_000) -> bool:
        """Was the packet found without falling asleep?"""
        self.comes_ns = self.now_ns + takes_ns
        found = self.conversation.look(self._poll, timeout_us)
        self.now_ns = max(self.now_ns, self.comes_ns)
        self.conversation.came(packets, size)
        return found == READY

    def talk(self) -> None:
        for _ in range(SHORT_WAITS):
            self.wait(SHORT_NS // 4)


def test_where_one_packet_soon_follows_another_the_node_looks_for_the_next_and_gives_way() -> None:
    mailbox = Mailbox()
    assert [mailbox.wait(SHORT_NS // 4) for _ in range(SHORT_WAITS)] == [False] * SHORT_WAITS
    assert not mailbox.looks, "up to now it slept"
    before = mailbox.count
    assert [mailbox.wait(SHORT_NS // 4) for _ in range(20)] == [True] * 20
    assert mailbox.count - before == mailbox.looks - 20, "between any two looks"
    assert mailbox.looks > 20 * 10


def test_one_that_does_not_come_soon_ends_that() -> None:
    mailbox = Mailbox()
    mailbox.talk()
    began_ns = mailbox.now_ns
    mailbox.comes_ns = began_ns + SECOND_NS
    assert mailbox.conversation.look(mailbox._poll, 20_000) == []
    assert SHORT_NS <= mailbox.now_ns - began_ns < SHORT_NS + 10_000
    looks = mailbox.looks
    assert mailbox.conversation.look(mailbox._poll, 20_000) == [], "woken by something else it goes on waiting"
    assert mailbox.looks == looks, "and does not begin anew"
    mailbox.now_ns = mailbox.comes_ns
    mailbox.conversation.came(1, 100)
    assert not mailbox.wait(SHORT_NS // 4)


def test_what_comes_while_it_waits_for_nothing_says_nothing() -> None:
    """As where a packet is left for a moment, and another one is taken in with it."""
    mailbox = Mailbox()
    mailbox.talk()
    mailbox.now_ns += SECOND_NS
    mailbox.conversation.came(1, 100)
    assert mailbox.wait(SHORT_NS // 4)


def test_who_asks_now_and_then_is_not_waited_for() -> None:
    """The leader waits for a follower, which is short, and for the caller, which is not."""
    mailbox = Mailbox()
    for _ in range(100):
        assert not mailbox.wait(SHORT_NS // 4)
        assert not mailbox.wait(50 * SHORT_NS)
    assert not mailbox.looks


@pytest.mark.parametrize(
    ("more", "gives_way"), [({"size": FEW_BYTES + 1}, True), ({"packets": FEW_PACKETS + 1}, False)]
)
def test_where_many_ask_it_sleeps_until_there_were_few_for_some_time(more: dict[str, int], gives_way: bool) -> None:
    """Many processes, unlike one with many threads, leave it no processor to give up either."""
    mailbox = Mailbox()
    mailbox.talk()
    assert mailbox.wait(SHORT_NS // 4, **more)
    until_ns = mailbox.now_ns + MANY_NS
    assert mailbox.yielding.give_way() is gives_way
    looks = mailbox.looks
    while mailbox.now_ns < until_ns:
        assert not mailbox.wait(SHORT_NS // 4, FEW_PACKETS, FEW_BYTES)
    assert mailbox.looks == looks
    assert mailbox.wait(SHORT_NS // 4, FEW_PACKETS, FEW_BYTES)


@pytest.mark.parametrize("timeout_us", [0, 50])
def test_what_is_due_is_not_late_for_it(timeout_us: int) -> None:
    mailbox = Mailbox()
    mailbox.talk()
    began_ns = mailbox.now_ns
    mailbox.comes_ns = began_ns + SHORT_NS // 2
    assert mailbox.conversation.look(mailbox._poll, timeout_us) == []
    a_look_ns = 2_000  # And giving way once.
    assert timeout_us * 1_000 <= mailbox.now_ns - began_ns < timeout_us * 1_000 + a_look_ns


def test_beside_a_program_that_never_sleeps_it_sleeps() -> None:
    mailbox = Mailbox()
    mailbox.talk()
    mailbox.takes_ns = SLICE_NS
    while mailbox.yielding.give_way():
        pass
    looks = mailbox.looks
    for _ in range(100):
        mailbox.wait(SHORT_NS // 4)
    assert mailbox.looks - looks <= 100, "one look each time, before it would have given way"
