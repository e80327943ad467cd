"""Files, directories, ranges and transactions, asked for by the client of the state machine itself."""

from __future__ import annotations

import pytest

from coordinator.client import transactions as t
from coordinator.client.errors import (
    Aborted,
    Changed,
    Compacted,
    Exists,
    Forbidden,
    InvalidRequest,
    NotEmpty,
    NotFound,
    WrongKind,
)
from coordinator.client.transactions import Transaction, key
from coordinator.statemachine.files import KeyView
from tests.unit.client.cluster import Cluster, TestClient

# --- files ----------------------------------------------------------------------------------------


def test_a_file_is_created_read_written_and_deleted(client: TestClient):
    client.files.make_directory("/deploy")
    created = client.files.create("deploy/eu", b"1")
    found = client.files.read("/deploy/eu")
    assert (created.path, found.value, found.stat.version, found.stat.instance) == (
        "deploy/eu",
        b"1",
        1,
        created.revision,
    )
    revision = client.files.write("deploy/eu", b"22", generation=1, instance=created.revision)
    stat = client.files.stat("deploy/eu")
    assert (stat.version, stat.revision, stat.size) == (2, revision, 2)
    assert client.files.read("deploy/eu", revision=created.revision).value == b"1"
    assert client.files.delete("deploy/eu") == 1
    with pytest.raises(NotFound, match="deploy/eu"):
        client.files.read("deploy/eu")
    assert client.files.read("deploy/eu", revision=revision).value == b"22", "the past stays readable"


def test_a_write_by_generation_tells_the_one_of_now(client: TestClient):
    client.files.create("a", b"1")
    client.files.write("a", b"2")
    with pytest.raises(Changed) as caught:
        client.files.write("a", b"3", generation=1)
    assert caught.value.version == 2
    assert client.files.read("a").value == b"2"
    with pytest.raises(Changed):
        client.files.delete("a", generation=1)
    assert client.files.delete("a", generation=2) == 1


def test_a_write_and_a_deletion_by_revision_tell_what_is_there_now(client: TestClient):
    first = client.files.create("a", b"1").revision
    second = client.files.write("a", b"2", revision=first)
    with pytest.raises(Changed) as caught:
        client.files.write("a", b"3", revision=first)
    assert (caught.value.revision, caught.value.version, caught.value.instance) == (second, 2, first)
    with pytest.raises(Changed):
        client.files.delete("a", revision=first)
    with pytest.raises(Changed):
        client.files.write("a", b"3", revision=second, generation=1)
    assert client.files.read("a").value == b"2"
    assert client.files.delete("a", revision=second) == 1
    for call in (lambda: client.files.write("a", b"3", revision=second), lambda: client.files.delete("a", revision=0)):
        with pytest.raises(NotFound, match="'a'"):
            call()
    made = client.files.make_directory("d")
    with pytest.raises(WrongKind):
        client.files.write("d", b"", revision=made)
    with pytest.raises(InvalidRequest, match="got -1"):
        client.files.write("a", b"3", revision=-1)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda files: files.create("a"), Exists),
        (lambda files: files.create("d", b""), Exists),
        (lambda files: files.create("none/b"), NotFound),
        (lambda files: files.create("a/b"), WrongKind),
        (lambda files: files.make_directory("d"), Exists),
        (lambda files: files.make_directory("none/d"), NotFound),
        (lambda files: files.write("none", b""), NotFound),
        (lambda files: files.write("d", b""), WrongKind),
        (lambda files: files.read("d"), WrongKind),
        (lambda files: files.delete("d"), NotEmpty),
        (lambda files: files.list_directory("a"), WrongKind),
        (lambda files: files.attach("a"), WrongKind),
    ],
)
def test_each_refusal_has_its_error(client: TestClient, call, error):
    client.files.create("a")
    client.files.create("d/x", parents=True)
    with pytest.raises(error):
        call(client.files)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda files: files.read(""), "1 to 512 bytes"),
        (lambda files: files.read("a", revision=-1), "from 0 on, got -1"),
        (lambda files: files.read("a", revision=True), "got True"),
        (lambda files: files.write("a", "text"), "bytes, got str"),
        (lambda files: files.write("a", b"", generation=-1), "got -1"),
        (lambda files: files.list_directory("a", limit=0), "1 to 1000, got 0"),
        (lambda files: files.read_range("a", "b", prefix=True), "got both"),
        (lambda files: files.create("a", ttl=0.1), "ttl is a number of seconds"),
        (lambda files: files.watch("a", since=-3), "got -3"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected_and_what_came(client: TestClient, call, said):
    sent = len(client.cluster.ops)
    with pytest.raises(InvalidRequest, match=said):
        call(client.files)
    assert len(client.cluster.ops) == sent, "nobody was asked"


def test_sequential_files_grow_with_every_creation(client: TestClient):
    names = [client.files.create("queue/", sequential=True, parents=True).path for _ in range(5)]
    assert names == sorted(set(names))
    assert all(name.startswith("queue/") and len(name) == len("queue/") + 19 for name in names)


def test_an_ephemeral_file_goes_with_its_session_and_not_before(cluster: Cluster, client: TestClient):
    other = cluster.client()
    other.files.create("members/b", b"b", ephemeral=True, parents=True, ttl=2)
    cluster.pass_time(10)
    assert client.files.stat("members/b").ephemeral
    other.die()
    cluster.pass_time(1.3)
    assert client.files.children("members") == ["b"]
    cluster.pass_time(1)
    with pytest.raises(NotFound):
        client.files.stat("members/b")


def test_a_file_that_another_session_is_attached_to_outlives_its_creator(cluster: Cluster, client: TestClient):
    other = cluster.client()
    other.files.create("lamp", ephemeral=True, ttl=2)
    client.files.attach("lamp", ttl=5)
    other.die()
    cluster.pass_time(4)
    assert client.files.stat("lamp").sessions
    client.files.detach("lamp", ttl=5)
    with pytest.raises(NotFound):
        client.files.stat("lamp")


def test_a_lost_answer_creates_one_file_and_no_second(cluster: Cluster, client: TestClient):
    lost = iter([True, True])
    cluster.loses = lambda request: next(lost, False)
    client.files.create("queue/", sequential=True, parents=True)
    assert client.files.count("queue/", prefix=True) == 1


# --- directories and ranges -----------------------------------------------------------------------


def test_a_directory_is_listed_in_pages(client: TestClient):
    for number in range(7):
        client.files.create(f"d/{number}", parents=True)
    page = client.files.list_directory("d/", limit=3)
    assert [child.name for child in page.children] == ["0", "1", "2"]
    assert (page.count, page.more) == (7, True)
    rest = client.files.list_directory("/d", after="2", limit=10)
    assert ([child.name for child in rest.children], rest.more) == (["3", "4", "5", "6"], False)
    assert client.files.children("d") == [str(number) for number in range(7)]
    assert client.files.children() == client.files.children("/") == ["d"]


def test_a_directory_and_a_stat_are_read_as_they_were(client: TestClient):
    before = client.files.create("d/a", b"1", parents=True).revision
    client.files.write("d/a", b"22")
    client.files.delete("d", recursive=True)
    client.files.create("d/b", parents=True)
    assert client.files.children("d", revision=before) == ["a"]
    page = client.files.list_directory("/d/", revision=before)
    assert ([child.name for child in page.children], page.revision) == (["a"], before)
    assert client.files.children("d") == ["b"]
    stat = client.files.stat("d/a", revision=before)
    assert (stat.size, stat.version, stat.instance) == (1, 1, before)
    assert client.files.stat("d/a", revision=before + 1).version == 2
    with pytest.raises(NotFound, match=f"at revision {before - 1}"):
        client.files.stat("d", revision=before - 1)
    with pytest.raises(NotFound):
        client.files.stat("d/a")
    with pytest.raises(InvalidRequest, match="a whole number from 0 on, got -1"):
        client.files.stat("d/a", revision=-1)


def test_a_scan_reads_one_revision_whatever_is_written_meanwhile(client: TestClient):
    for number in range(2_500):
        client.put(f"k/{number:04}", b"old")
    scan = client.files.scan("k/", prefix=True)
    seen: list[KeyView] = []
    for view in scan:
        if not seen:
            client.put("k/2400", b"new")
            client.put("k/9999", b"new")
        seen.append(view)
    assert len(seen) == 2_500
    assert {view.value for view in seen} == {b"old"}


def test_ranges_are_sorted_counted_limited_and_deleted(client: TestClient):
    for name, value in (("a", b"3"), ("b", b"1"), ("c", b"2")):
        client.put(name, value)
    view = client.files.read_range("a", "c")
    assert [key.key for key in view.keys] == ["a", "b"]
    by_value = client.files.read_range("", prefix=True, sort_by="value", limit=2)
    assert ([key.key for key in by_value.keys], by_value.count, by_value.more) == (["b", "c"], 3, True)
    backwards = client.files.read_range("/", prefix=True, descending=True, keys_only=True)
    assert [(key.key, key.value) for key in backwards.keys] == [("c", None), ("b", None), ("a", None)]
    assert client.files.delete_range("a", "c") == 2
    assert client.files.count("", prefix=True) == 1


def test_what_was_compacted_is_refused_and_the_oldest_revision_named(client: TestClient):
    first = client.put("a", b"1")
    last = client.put("a", b"2")
    client.files.compact(last)
    with pytest.raises(Compacted) as caught:
        client.files.read("a", revision=first)
    assert caught.value.oldest == last
    for read in (client.files.stat, client.files.list_directory, client.files.children):
        with pytest.raises(Compacted, match=str(last)):
            read("a", revision=first)


# --- counters and transactions --------------------------------------------------------------------


def test_counters_add_up_over_lost_answers_and_dead_leaders(cluster: Cluster, client: TestClient):
    others = [cluster.client() for _ in range(3)]
    count = 0

    def loses(request: object) -> bool:
        nonlocal count
        count += 1
        return count % 5 == 0

    cluster.loses = loses
    running = [each.later.add("hits", 2) for each in others for _ in range(10)]
    cluster.kill_leader()
    sums = sorted(each.value() for each in running)
    assert sums == [*range(2, 62, 2)], "each addition is applied once"
    assert client.get("hits") == b"60"
    with pytest.raises(InvalidRequest, match="64 bits"):
        client.add("hits", 2**63)
    client.put("text", b"x")
    with pytest.raises(WrongKind):
        client.add("text")


def test_a_transaction_takes_the_branch_that_its_comparisons_say(client: TestClient):
    client.put("from", b"x")
    move = (
        Transaction()
        .when(key("from").value == b"x", key("to").is_missing)
        .then(t.put("to", b"x"), t.delete("from"))
        .otherwise(t.read("to"))
    )
    done = client.transact(move)
    assert (done.succeeded, len(done.results)) == (True, 2)
    assert (client.get("from"), client.get("to")) == (None, b"x")
    again = client.transact(move)
    assert not again.succeeded
    assert again.results[0].value == b"x"
    assert client.files.read("to").stat.revision == done.revision


def test_a_transaction_that_is_refused_has_done_nothing_and_says_where(client: TestClient):
    client.put("a", b"1")
    within = Transaction().then(t.create("b"), t.create("a"))
    with pytest.raises(Aborted) as caught:
        client.transact(Transaction().then(t.put("c", b""), within))
    assert caught.value.place == (1, 1)
    assert isinstance(caught.value.cause, Exists)
    assert (client.get("b"), client.get("c")) == (None, None)


def test_operations_of_a_transaction_go_by_generation_instance_and_revision(client: TestClient):
    created = client.files.create("a", b"one")
    client.files.write("a", b"two")
    for refused in (
        t.write("a", b"x", generation=1),
        t.write("a", b"x", instance=created.revision + 1),
        t.remove("a", generation=1),
        t.remove("a", instance=created.revision + 1),
    ):
        with pytest.raises(Aborted) as caught:
            client.transact(Transaction().then(refused))
        assert isinstance(caught.value.cause, Changed)
        assert (caught.value.cause.version, caught.value.cause.instance) == (2, created.revision)
    done = client.transact(
        Transaction().then(
            t.write("a", b"three", generation=2, instance=created.revision),
            t.read("a", revision=created.revision),
            t.read_range("a", "b", revision=created.revision),
            t.read("a"),
        )
    )
    assert [done.results[1].value, done.results[2].keys[0].value, done.results[3].value] == [b"one", b"one", b"three"]
    with pytest.raises(InvalidRequest, match="a generation or an instance is a whole number from 0 on, got -1"):
        t.remove("a", generation=-1)
    with pytest.raises(InvalidRequest, match="a revision is a whole number from 0 on, got 'x'"):
        t.read("a", revision="x")  # type: ignore[arg-type]


def test_every_comparison_and_operation_reads_as_it_is_meant(client: TestClient):
    client.files.create("e", b"v", ephemeral=True, ttl=5)
    with client.locks.acquire("e", ttl=5) as hold:
        stat = client.files.stat("e")
        subject = key("e")
        for compare in (
            subject.value == b"v",
            subject.value != b"w",
            subject.value < b"w",
            subject.value > b"u",
            subject.version == 1,
            subject.instance == stat.instance,
            subject.revision > stat.revision - 1,
            subject.session == stat.sessions[0],
            subject.token == hold.token,
            subject.holder == hold.session,
            subject.lock_generation == hold.token,
            subject.acl_generation == stat.acl_generation,
            subject.is_there,
            key("none").is_missing,
        ):
            assert client.transact(Transaction().when(compare)).succeeded, compare
    assert not client.transact(Transaction().when(key("e").token > 0)).succeeded
    done = client.transact(
        Transaction().then(
            t.make_directory("d/"),
            t.create("d/f", b"1", sequential=True),
            t.write("e", b"w"),
            t.add("n", 5),
            t.read_range("d/", prefix=True),
        )
    )
    assert [type(result).__name__ for result in done.results] == ["Created", "Created", "Done", "Counted", "RangeView"]
    done = client.transact(Transaction().then(t.remove("d", recursive=True), t.delete_range("n")))
    assert [result.count for result in done.results] == [2, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: key("a").version == "3", "compared with int, got '3'"),
        (lambda: key("a").value == 3, "compared with bytes, got 3"),
        (lambda: Transaction().when(True), "comparisons such as"),  # type: ignore[arg-type]
        (lambda: Transaction().then("put"), "operations such as"),  # type: ignore[arg-type]
        (lambda: key(""), "1 to 512 bytes"),
    ],
)
def test_a_transaction_that_makes_no_sense_is_refused_where_it_is_written(make, said):
    with pytest.raises(InvalidRequest, match=said):
        make()


def test_rights_hold_for_files_too(cluster: Cluster, client: TestClient):
    cluster.grant("reader", "read", prefixes=("pub/",))
    reader = cluster.client("reader")
    client.put("pub/a", b"1")
    assert reader.files.read("pub/a").value == b"1"
    for call in (
        lambda: reader.files.read("secret"),
        lambda: reader.files.read_range("", prefix=True),
        lambda: reader.files.watch("secret").next(timeout=0.1),
    ):
        with pytest.raises(Forbidden):
            call()
