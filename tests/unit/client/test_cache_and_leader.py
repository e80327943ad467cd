"""A client's cache against the leader that allows it, where a word between them is lost."""

from __future__ import annotations

from coordinator import wire
from coordinator.client.cache import Cache
from coordinator.client.calls import Call
from coordinator.client.session import Session
from tests.unit.replica.conftest import stage  # noqa: F401 - a fixture
from tests.unit.replica.test_caching import CLUSTER, A, Reader


def test_after_a_lost_word_the_second_read_is_kept_again(stage):  # noqa: F811
    reader, cache = Reader(stage), Cache()
    cache.session = Session(reader.session, 600_000, stage.clock.us)

    def read() -> int:
        call = Call(wire.DirectoryRequest, deadline_us=None, timed_out=lambda call: None)
        call.request_id, call.first_sent_us = 900, stage.clock.us
        cache.asks(call, A)
        answer = reader.reads(A)
        if isinstance(answer, wire.CachedAnswer):
            cache.take("node1", CLUSTER, answer)
        call.resolve(None)
        return cache.kept

    assert read() == 1
    # The renewal that was sent beside that read, at a change of leader: it names the term before.
    cache._renewals[901] = stage.clock.us
    (renewed,) = reader.ask(wire.RenewCacheRequest(901, CLUSTER, reader.session, 0, 0, 1))
    assert isinstance(renewed, wire.CacheRenewed)
    cache.renewed("node1", CLUSTER, renewed)
    assert len(cache.take_words()) == 1, "it is lost"
    assert read() == 0, "the leader answers by the lease of before"
    ((_, word),) = cache.take_words()
    reader.ask(word)
    assert read() == 1
