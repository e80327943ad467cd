"""What a client keeps of what it read: served without a question, dropped before it is said to be."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.client import cache as cache_module
from coordinator.client.cache import Cache
from coordinator.client.calls import Call
from coordinator.client.errors import NotFound
from coordinator.client.session import Session
from coordinator.statemachine.commands import CloseSession, GetKey, KeyValue
from coordinator.statemachine.files import BeginCaching, FileContent, ReadFile, Stat
from tests.unit.client.cluster import Cluster, TestClient


@pytest.fixture
def reader(cluster: Cluster) -> TestClient:
    client = cluster.client()
    client.caches = True
    return client


LEASE_US = 2_000_000


def asked(cluster: Cluster, read) -> int:
    """How many requests came for it."""
    before = cluster.served
    read()
    return cluster.served - before


def test_what_was_read_is_served_with_no_question(cluster: Cluster, reader: TestClient):
    reader.put("a", b"1")
    assert reader.get("a") == b"1"
    assert asked(cluster, lambda: reader.get("a")) == 0
    assert reader.files.read("a").value == b"1"
    assert asked(cluster, lambda: reader.files.read("a")) == 0
    assert reader.files.stat("a").size == 1
    assert asked(cluster, lambda: reader.files.stat("a")) == 0


def test_that_there_is_no_file_is_kept_too(cluster: Cluster, reader: TestClient):
    for questions in (2, 0):
        with pytest.raises(NotFound, match="'a/b'"):
            reader.files.read("a/b")
        if not questions:
            assert asked(cluster, lambda: None) == 0
    before = cluster.served
    with pytest.raises(NotFound):
        reader.files.read("a/b")
    assert cluster.served == before
    assert reader.get("n") is None
    assert asked(cluster, lambda: reader.get("n")) == 0


def test_the_past_is_asked_for_each_time(cluster: Cluster, reader: TestClient):
    revision = reader.put("a", b"1")
    for _ in range(2):
        assert asked(cluster, lambda: reader.files.read("a", revision=revision)) == 1


def test_what_is_to_be_dropped_is_not_served_when_that_is_said(cluster: Cluster, reader: TestClient):
    reader.put("a", b"1")
    reader.get("a")
    reader.get("b")
    ticket = cluster.tell_to_drop(reader, "a")
    cluster.step()
    cluster.step()
    assert [(word.ticket, word.number) for word in cluster.dropped] == [(ticket, 1)]
    assert asked(cluster, lambda: reader.get("b")) == 0
    assert asked(cluster, lambda: reader.get("a")) == 1
    cluster.tell_to_drop(reader)
    cluster.step()
    cluster.step()
    assert asked(cluster, lambda: reader.get("b")) == 1


def test_a_lease_is_renewed_while_it_is_of_use_and_runs_out_else(cluster: Cluster, reader: TestClient):
    reader.get("a")
    for _ in range(20):
        cluster.pass_time(0.3)
        assert reader.core.cache.look(GetKey("a"), reader.clock) is not None
    cluster.pass_time(5)
    assert reader.core.cache.look(GetKey("a"), reader.clock) is None, "nobody read it: nobody renews it"
    assert reader.get("a") is None
    assert reader.core.cache.look(GetKey("a"), reader.clock) is not None


def test_a_client_that_is_cut_off_serves_for_its_lease_and_no_longer(cluster: Cluster, reader: TestClient):
    reader.get("a")
    since_us = cluster.now_us
    reader.is_cut_off = True
    while reader.core.cache.look(GetKey("a"), reader.clock) is not None:
        cluster.step()
    assert LEASE_US * 0.95 < cluster.now_us - since_us < LEASE_US * 0.99


def test_a_new_leader_is_told_that_nothing_of_before_is_served(cluster: Cluster, reader: TestClient):
    reader.get("a")
    cluster.kill_leader()
    reader.put("z", b"")  # It hears of the next one.
    cluster.pass_time(0.5)
    assert (cluster.dropped[-1].term, cluster.dropped[-1].ticket) == (cluster.term, 0)
    assert reader.core.cache.look(GetKey("a"), reader.clock) is None


def test_it_reads_on_where_nobody_may_cache(cluster: Cluster, reader: TestClient):
    cluster.lets_cache = False
    reader.put("a", b"1")
    for _ in range(2):
        assert reader.get("a") == b"1"
    assert reader.core.cache.kept == 0
    assert cluster.ops.count(BeginCaching()) == 1


def test_it_reads_on_where_the_cluster_is_of_an_earlier_level(cluster: Cluster, reader: TestClient):
    cluster.machine.state.level = 3
    reader.put("a", b"1")
    for _ in range(3):
        assert reader.get("a") == b"1"
    assert cluster.ops.count(BeginCaching()) == 1, "it is not asked each time"


def test_it_begins_anew_when_its_session_is_gone(cluster: Cluster, reader: TestClient):
    reader.get("a")
    own = reader.core.cache.session
    assert own is not None
    cluster.expire(own.session)
    cluster.pass_time(10)
    assert own.gone
    assert reader.core.cache.kept == 0
    cluster.cache_number += 1
    reader.get("a")
    assert asked(cluster, lambda: reader.get("a")) == 0
    assert cluster.ops.count(BeginCaching()) == 2


def test_a_client_that_closes_serves_nothing_more(cluster: Cluster, reader: TestClient):
    from coordinator.client import flows

    reader.get("a")
    flow = flows.close(reader.core, reader.clock, 1_000_000)
    next(flow)
    assert reader.core.cache.look(GetKey("a"), reader.clock) is None
    flow.close()
    cluster.step()
    assert CloseSession() in cluster.ops


# --- one by one -----------------------------------------------------------------------------------


class Hand:
    """A cache in the test's hand."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.cache.session = Session(7, 10_000, 0)
        self.now_us = 0
        self._ids = 0

    def asks(self, sent_us: int = 0, query: wire.CachedQuery = GetKey("a")) -> int:  # noqa: B008 - it is frozen
        self._ids += 1
        call = Call(wire.DirectoryRequest, deadline_us=None, timed_out=lambda call: None)
        call.request_id, call.first_sent_us = self._ids, sent_us
        self.cache.asks(call, query)
        return self._ids

    def answers(self, request_id: int, value: bytes, number: int = 1, ticket: int = 0, term: int = 1) -> None:
        self.cache.take("n", 1, wire.CachedAnswer(request_id, KeyValue(value), term, number, ticket, 2_000))

    def told(self, ticket: int, number: int = 1, term: int = 1, paths: tuple[str, ...] = ("a",)) -> None:
        self.cache.invalidate("n", wire.Invalidation(1, 7, term, number, ticket, paths, not paths))

    def serves(self, path: str = "a") -> bytes | None:
        found = self.cache.look(GetKey(path), lambda: self.now_us)
        assert found is None or isinstance(found, KeyValue)
        return None if found is None else found.value


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_an_answer_that_comes_behind_the_word_to_drop_it_is_not_kept(hand):
    """The channel reorders: the leader allowed it, and told it to drop it."""
    late = hand.asks()
    hand.told(1)
    hand.answers(late, b"old", ticket=0)
    assert hand.serves() is None
    hand.answers(hand.asks(), b"new", ticket=1)
    assert hand.serves() == b"new"


def test_a_copy_of_a_word_costs_a_question_and_no_more(hand):
    hand.answers(hand.asks(), b"1")
    hand.told(1)
    hand.answers(hand.asks(), b"2", ticket=1)
    hand.told(1)
    assert hand.serves() is None
    assert [word.ticket for _, word in hand.cache.take_words()] == [1, 1]


def test_an_answer_by_an_earlier_leader_or_lease_is_not_kept(hand):
    before, another = hand.asks(), hand.asks(query=GetKey("b"))
    hand.answers(hand.asks(), b"2", number=2)
    hand.answers(before, b"1", number=1)
    assert hand.serves() == b"2"
    hand.answers(another, b"3", number=1, term=2)
    assert (hand.serves(), hand.serves("b")) == (None, b"3")


def test_the_lease_counts_from_the_sending(hand):
    hand.answers(hand.asks(sent_us=1_000_000), b"1")
    hand.now_us = 1_000_000 + LEASE_US - LEASE_US // 100 - 5_001
    assert hand.serves() == b"1"
    hand.now_us += 1
    assert hand.serves() is None


def test_a_renewal_counts_from_the_very_sending_that_was_answered(hand):
    hand.answers(hand.asks(), b"1")
    hand.serves()
    sent_us = 700_000
    assert hand.cache.renewal(91, 1, sent_us) == wire.RenewCacheRequest(91, 1, 7, 1, 1, 1)
    assert hand.cache.renewal(92, 1, sent_us + 250_000) == wire.RenewCacheRequest(92, 1, 7, 1, 1, 2)
    hand.cache.renewed("n", 1, wire.CacheRenewed(91, 1, 1, 2_000))
    hand.now_us = sent_us + LEASE_US - LEASE_US // 100 - 5_000
    assert hand.serves() is None
    hand.cache.renewed("n", 1, wire.CacheRenewed(91, 1, 1, 2_000))
    assert hand.serves() is None, "a copy"
    hand.cache.renewed("n", 1, wire.CacheRenewed(92, 1, 1, 2_000))
    assert hand.serves() == b"1"


def test_a_lease_that_is_no_more_ends_all_of_it(hand):
    hand.answers(hand.asks(), b"1")
    hand.serves()
    assert hand.cache.renewal(91, 1, 700_000) is not None
    hand.cache.renewed("n", 1, wire.CacheRenewed(91, 1, 2, 2_000))
    assert hand.serves() is None
    assert [(word.term, word.number, word.ticket) for _, word in hand.cache.take_words()] == [(1, 2, 0)]
    hand.cache.renewed("n", 1, wire.CacheRenewed(90, 0, 9, 2_000))
    assert hand.cache.take_words() == [], "the word of a leader of before says nothing of now"


def test_who_looks_it_up_while_it_is_dropped_finds_nothing(hand):
    """Another thread has the lease in its hand already: it is emptied in place."""
    hand.answers(hand.asks(), b"1")
    lease = hand.cache._lease
    hand.answers(hand.asks(query=GetKey("b")), b"2", number=2)
    assert lease.kept == {}


@pytest.mark.interpreted
def test_of_more_than_may_be_kept_the_oldest_goes(hand, monkeypatch):
    monkeypatch.setattr(cache_module, "KEPT_MAX", 2)
    for path in ("a", "b", "a", "c"):
        hand.answers(hand.asks(query=GetKey(path)), path.encode())
    assert (hand.serves("a"), hand.serves("b"), hand.serves("c")) == (b"a", None, b"c"), "a was read anew"


@pytest.mark.interpreted
def test_what_is_kept_is_bounded_in_bytes_too(hand, monkeypatch):
    size = cache_module.RESULT_BYTES + 1 + 1_000
    monkeypatch.setattr(cache_module, "KEPT_BYTES_MAX", 2 * size)
    content = FileContent(bytes(1_000), Stat("f", directory=False, children=0, size=1_000))
    hand.cache.take("n", 1, wire.CachedAnswer(hand.asks(query=ReadFile("f")), content, 1, 1, 0, 2_000))
    hand.answers(hand.asks(query=GetKey("b")), bytes(1_000))
    assert (hand.cache.kept, hand.cache.kept_bytes) == (2, 2 * size)
    hand.answers(hand.asks(query=GetKey("b")), bytes(1_000))
    assert (hand.cache.kept, hand.cache.kept_bytes) == (2, 2 * size), "it takes the place of what was there"
    hand.answers(hand.asks(query=GetKey("c")), bytes(1_000))
    assert (hand.cache.kept, hand.cache.kept_bytes) == (2, 2 * size)
    assert hand.cache.look(ReadFile("f"), lambda: 0) is None
    hand.told(1, paths=("b",))
    assert hand.cache.kept_bytes == size
    hand.told(2, paths=())
    assert hand.cache.kept_bytes == 0


def test_what_may_be_served_no_more_is_given_up(hand):
    hand.answers(hand.asks(), b"1")
    ends_us = LEASE_US - LEASE_US // 100 - 5_000
    assert hand.cache.due_us() == ends_us, "nobody read it: it is not renewed"
    assert hand.cache.renewal(91, 1, ends_us - 1) is None, "nor where something else is due"
    hand.cache.pass_time(ends_us - 1)
    assert hand.cache.kept == 1
    hand.cache.pass_time(ends_us)
    assert (hand.cache.kept, hand.cache.kept_bytes) == (0, 0)


def test_nothing_is_kept_for_longer_than_it_may_be_served(cluster: Cluster, reader: TestClient):
    reader.get("a")
    assert reader.core.cache.kept == 1
    reader.is_cut_off = True
    cluster.pass_time(2.1)
    assert reader.core.cache.kept == 0


def test_that_nothing_of_before_is_kept_is_said_again_where_the_leader_does_not_know_it(hand):
    """The word may be lost, and what is read keeps the lease alive that the leader knows: what came by it was dropped
    for as long as somebody read."""
    hand.answers(hand.asks(), b"1")
    hand.serves()
    assert hand.cache.renewal(91, 1, 700_000) is not None
    assert hand.cache.renewal(92, 1, 900_000) is not None
    hand.cache.renewed("n", 1, wire.CacheRenewed(91, 1, 2, 2_000))
    assert len(hand.cache.take_words()) == 1
    hand.answers(hand.asks(), b"2", number=1)
    assert hand.serves() is None
    (node, word), *more = hand.cache.take_words()
    assert (node, word.session, word.term, word.number, word.ticket, more) == ("n", 7, 1, 2, 0, [])
    hand.cache.renewed("n", 1, wire.CacheRenewed(92, 1, 1, 2_000))
    assert [word.number for _, word in hand.cache.take_words()] == [2]
    hand.answers(hand.asks(), b"2", number=3, term=0)
    assert hand.cache.take_words() == [], "that one leads no more"


def test_an_answer_that_comes_when_the_session_is_gone_says_nothing(hand):
    hand.answers(hand.asks(), b"1", number=2)
    hand.serves()
    assert hand.cache.renewal(91, 1, 700_000) is not None
    hand.cache.clear()
    for number in (1, 2, 3):
        hand.cache.renewed("n", 1, wire.CacheRenewed(91, 1, number, 2_000))
    assert (hand.cache.take_words(), hand.serves()) == ([], None)


def test_nothing_is_kept_that_was_not_asked(hand):
    hand.cache.take("n", 1, wire.CachedAnswer(5, KeyValue(b"1"), 1, 1, 0, 2_000))
    call = Call(wire.DirectoryRequest, deadline_us=None, timed_out=lambda call: None)
    call.request_id = 6
    hand.cache.asks(call, ReadFile("a"))
    hand.cache.take("n", 1, wire.CachedAnswer(6, KeyValue(b"1"), 1, 1, 0, 2_000))
    assert hand.cache.kept == 0
