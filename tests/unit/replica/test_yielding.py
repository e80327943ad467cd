"""Whoever a packet wakes runs first, except where programs that never sleep would (`yielding.py`)."""

from __future__ import annotations

from coordinator.replica.yielding import PAUSE_NS, PAUSE_NS_MAX, TOGETHER, TOGETHER_NS_MAX, Yielding

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

