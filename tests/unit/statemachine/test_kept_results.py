"""Results are kept until they are acknowledged, under a bound of bytes, in items that any replica can load."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coordinator.statemachine import commands, lock_commands, sessions, snapshot, snapshot_items
from coordinator.statemachine.commands import (
    Aborted,
    AcquireLock,
    CancelAcquire,
    CloseSession,
    Done,
    Failure,
    GetKey,
    PutKey,
    ReleaseLock,
    Transact,
    Transacted,
)
from coordinator.statemachine.files import (
    TRANSACTION_READ_BYTES_MAX,
    CreateFile,
    DeletePath,
    DetachFile,
    FileContent,
    ReadFile,
    ReadRange,
)
from coordinator.statemachine.lock_commands import Release
from coordinator.statemachine.results import _CONTENTIOUS, MESSAGE_CHARS_MAX, RESULT_BYTES_MAX, SMALL, kept, size_of
from coordinator.statemachine.sessions import RESULTS_MAX
from tests.unit.statemachine.asking import Asking, encode
from tests.unit.statemachine.derived import restored

LARGE = Transact((), (ReadFile("large"),))


def with_a_large_file(size: int = 65_000) -> tuple[Asking, int]:
    asking = Asking()
    session = asking.open()
    asking.send(session, 1, PutKey("large", bytes(size)))
    return asking, session


def filled(asking: Asking, session: int, first: int = 3) -> int:
    """Ask for the large file, the number 2 left out and nothing acknowledged, until that is refused: under which number
    that was."""
    for number in range(first, RESULTS_MAX):
        if isinstance(asking.send(session, number, LARGE, acked=2), Failure):
            return number
    raise AssertionError("there is no bound")


def frames(data: bytes) -> Iterator[int]:
    """How many bytes each frame of a snapshot has."""
    at = 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield size
        at += 4 + size


# --- what a transaction reads ---------------------------------------------------------------------


@pytest.mark.parametrize("keys_only", [False, True])
def test_a_transaction_reads_no_more_bytes_than_its_result_may_have_encoded(keys_only):
    """Names of one character and no contents: counted by these alone, 128 such reads had 65,536 bytes, in a result of
    953,353."""
    asking = Asking()
    session = asking.open()
    for number in range(512):
        asking.ask(session, PutKey(chr(0x4E00 + number), b""))
    read = ReadRange("", prefix=True, keys_only=keys_only)
    aborted = asking.ask(session, Transact((), (read,) * 128))
    assert isinstance(aborted, Aborted)
    assert aborted.refusal.code == commands.TOO_MANY
    read_up_to_the_bound = asking.ask(session, Transact((), (read,) * aborted.place[0]))
    assert isinstance(read_up_to_the_bound, Transacted)
    assert 0.8 * TRANSACTION_READ_BYTES_MAX < size_of(read_up_to_the_bound) < TRANSACTION_READ_BYTES_MAX + 128


def test_a_file_counts_with_its_stat():
    asking = Asking()
    session = asking.open()
    asking.ask(session, PutKey("d/" + "n" * 500, b""))
    asking.ask(session, PutKey("large", bytes(32_000)))
    reads = (ReadFile("d/" + "n" * 500),) * 126
    assert isinstance(asking.ask(session, Transact((), reads)), Aborted)
    done = asking.ask(session, Transact((), (ReadFile("large"), ReadFile("large"))))
    assert [type(one) for one in done.results] == [FileContent] * 2


# --- the bound of bytes ---------------------------------------------------------------------------


def test_at_the_bound_of_bytes_new_requests_are_refused_and_results_kept():
    asking, session = with_a_large_file()
    number = filled(asking, session)
    row = asking.machine.sessions[session]
    assert RESULT_BYTES_MAX <= row.result_bytes < RESULT_BYTES_MAX + TRANSACTION_READ_BYTES_MAX + 1_024
    refused = asking.send(session, number, PutKey("b", b"1"), acked=2)
    assert refused.code == commands.BUSY
    assert f"at most {RESULT_BYTES_MAX}" in refused.message
    assert asking.query(GetKey("b")).version == 0, "it was not applied"
    assert number not in row.results, "and the same number may be sent again"
    for answered in (3, number - 1):
        again = asking.send(session, answered, LARGE, acked=2)
        assert isinstance(again, Transacted)
        assert again == row.results[answered]
    assert isinstance(asking.query(ReadFile("large")), FileContent), "reads outside of transactions go on"


def test_a_client_that_acknowledges_gets_going_again():
    asking, session = with_a_large_file()
    number = filled(asking, session)
    assert isinstance(asking.send(session, 2, LARGE, acked=2), Transacted), "the lowest number is always taken"
    assert isinstance(asking.send(session, number, LARGE, acked=number), Transacted)
    row = asking.machine.sessions[session]
    assert (row.result_bytes, [*row.sizes]) == (size_of(row.results[number]), [number])
    assert isinstance(asking.send(session, number + 1, PutKey("b", b"1"), acked=number + 1), Done)
    assert (row.result_bytes, row.sizes) == (0, {})


def test_a_refused_request_acknowledges_all_the_same():
    asking, session = with_a_large_file()
    number = filled(asking, session)
    asking.send(session, 2, LARGE, acked=2)
    before = asking.machine.sessions[session].result_bytes
    assert asking.send(session, number + RESULTS_MAX, PutKey("b", b""), acked=50).code == commands.BUSY
    assert asking.machine.sessions[session].result_bytes < before // 2 + before // 4
    assert isinstance(asking.send(session, number, LARGE, acked=50), Transacted)


def test_what_lets_go_is_never_refused_for_the_bytes_of_results():
    asking, session = with_a_large_file()
    other = asking.open()
    asking.send(session, 2, AcquireLock("one", 1, wait=True))
    asking.send(session, 3, lock_commands.Acquire(("two", "three"), 1))
    asking.send(session, 4, CreateFile("e", b"", ephemeral=True), acked=4)
    for name in ("one", "two", "three"):
        asking.acquire(other, name)
    number = filled(asking, session, first=6)
    for op in (ReleaseLock("one", 1), Release(("two", "three"), 1), CancelAcquire("four", 1, 5), DetachFile("e")):
        result = asking.send(session, number, op)
        assert not (isinstance(result, Failure) and result.code == commands.BUSY), op
        number += 1
    assert {asking.holder(name) for name in ("one", "two", "three")} == {(other, 1)}
    assert asking.query(ReadFile("e")).code == commands.NOT_FOUND
    assert isinstance(asking.send(session, number, CloseSession()), Done)
    assert session not in asking.machine.sessions


def test_the_bound_is_of_each_session():
    asking, session = with_a_large_file()
    filled(asking, session)
    assert isinstance(asking.ask(asking.open(), LARGE), Transacted)


def test_a_cancel_of_its_own_number_leaves_no_mark_that_is_counted():
    """Its result takes the place of the mark: a replica that began with a snapshot never saw that."""
    asking = Asking()
    session = asking.open()
    assert isinstance(asking.send(session, 3, CancelAcquire("a", 1, 3)), commands.NotHeld)
    assert asking.machine.sessions[session].sizes == {}
    asking.send(session, 5, CancelAcquire("a", 1, 4))
    assert [*asking.machine.sessions[session].sizes] == [4]
    restored(asking.machine)


def test_a_refusal_does_not_repeat_all_that_came():
    asking = Asking()
    web = asking.open("web")
    refused = asking.ask(web, commands.SetPrincipal("\1" * 1_000_000, ()), "web")
    assert refused.code == commands.INVALID
    assert len(refused.message) == MESSAGE_CHARS_MAX
    assert asking.machine.sessions[web].results[1] == refused
    assert asking.machine.sessions[web].result_bytes < MESSAGE_CHARS_MAX + 64
    restored(asking.machine)


SPOKEN = st.characters(exclude_categories=["Cs", "Cc"])


@given(st.lists(st.tuples(SPOKEN, st.booleans())), st.booleans())
@example([("\U00031350", True)], True)
@settings(deadline=None)
def test_a_refusal_is_kept_in_the_same_words_by_every_version_of_python(text, aborted):
    """What `repr` escapes is what its Unicode tables do not know, or do not print; a later version knows more."""

    def said(*, by_a_later_version):
        letters = (
            letter.encode("ascii", "backslashreplace").decode()
            if _CONTENTIOUS.match(letter) and not (known_later and by_a_later_version)
            else letter
            for letter, known_later in text
        )
        refusal = Failure(commands.NOT_FOUND, "there is no '" + "".join(letters) + "'")
        return kept(Aborted((1,), refusal) if aborted else refusal)

    assert said(by_a_later_version=True) == said(by_a_later_version=False)


def test_what_every_version_prints_is_kept_as_it_is():
    """It is printed by this one, too; so nothing of it is left to a table."""
    kept_as_it_is = [chr(at) for at in range(0x20, 0x110000) if not _CONTENTIOUS.match(chr(at))]
    assert len(kept_as_it_is) > 30_000
    assert all(letter.isprintable() for letter in kept_as_it_is)
    asking = Asking()
    refused = asking.ask(asking.open(), DeletePath("größe/Ответ/漢字/かな/한글/\U00031350"))
    assert refused.message == "there is no 'größe/Ответ/漢字/かな/한글/\\U00031350'"


def test_small_results_are_small():
    """So that nobody need count them."""
    most = (1 << 63) - 1
    for kind in SMALL:
        assert {*typing.get_type_hints(kind).values()} <= {int, bool}, kind
        assert size_of(kind(**dict.fromkeys(kind.__struct_fields__, most))) < 32, kind


# --- snapshots ------------------------------------------------------------------------------------


def test_frames_and_slices_of_large_results_are_bounded():
    asking, session = with_a_large_file()
    filled(asking, session)
    asking.ask(asking.open(), LARGE)
    data = snapshot.dump(asking.machine)
    assert max(frames(data)) < snapshot.FRAME_BYTES + TRANSACTION_READ_BYTES_MAX + 1_024
    dump = snapshot.begin(asking.machine)
    sizes = []
    while not dump.done:
        sizes.append(len(dump.slice()))
    assert max(sizes) < snapshot.SLICE_BYTES + snapshot.FRAME_BYTES + TRANSACTION_READ_BYTES_MAX + 1_024
    again = restored(asking.machine)
    assert again.sessions[session].results == asking.machine.sessions[session].results


@given(st.lists(st.sampled_from([0, 0, 40, 900, 5_000, 16_383, 16_384, 16_385, 70_000]), max_size=400))
@settings(deadline=None)
def test_results_are_cut_by_number_and_by_bytes(sizes):
    numbers = [*range(7, 7 + len(sizes))]
    sized = {number: size for number, size in zip(numbers, sizes, strict=True) if size}
    parts = [*snapshot_items._parts(numbers, sized)]
    assert [number for part in parts for number in part] == numbers
    for part in parts:
        assert 1 <= len(part) <= snapshot_items.PART_MAX
        assert len(part) == 1 or sum(sized.get(number, 0) for number in part) <= snapshot_items.PART_BYTES
    for part, following in pairwise(parts):
        one_more = sum(sized.get(number, 0) for number in (*part, following[0]))
        assert len(part) == snapshot_items.PART_MAX or one_more > snapshot_items.PART_BYTES, (
            "no more items than need be"
        )


@pytest.mark.long
def test_results_above_the_bound_of_before_are_loaded_and_can_be_acknowledged():
    """Nothing counted them when they came: 81 of 953,353 bytes were a frame that no replica loaded."""
    asking, session = with_a_large_file(size=950_000)
    row = asking.machine.sessions[session]
    content = asking.query(ReadFile("large"))
    for number in range(2, 102):
        row.keep(number, Transacted(asking.index, True, (content,)))
    again = restored(asking.machine)
    assert max(frames(snapshot.dump(again))) < 1 << 20
    asking.machine = again
    assert asking.send(session, 102, PutKey("a", b"")).code == commands.BUSY
    assert isinstance(asking.send(session, 102, PutKey("a", b""), acked=102), Done)


@pytest.mark.interpreted
def test_no_frame_is_written_that_could_not_be_read(monkeypatch):
    asking, session = with_a_large_file()
    asking.send(session, 2, LARGE)
    monkeypatch.setattr(snapshot, "FRAME_BYTES_MAX", 60_000)
    with pytest.raises(AssertionError, match="no replica loads"):
        snapshot.dump(asking.machine)


# --- any requests ---------------------------------------------------------------------------------

NAMES = st.sampled_from("abc")
OPS = st.one_of(
    st.builds(PutKey, NAMES, st.binary(min_size=1, max_size=90)),
    st.builds(AcquireLock, NAMES, st.integers(0, 1), st.just(False)),
    st.builds(ReleaseLock, NAMES, st.integers(-1, 1)),
    st.builds(CancelAcquire, NAMES, st.integers(0, 1), st.integers(1, 40)),
    st.builds(Transact, st.just(()), st.lists(st.builds(ReadFile, NAMES), max_size=3).map(tuple)),
    st.just(Transact((), (ReadRange("", prefix=True),))),
)
LETS_GO = (ReleaseLock, CancelAcquire)


@pytest.mark.long
@pytest.mark.interpreted
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_nothing_is_dropped_and_nobody_is_stuck(data):
    """Against the sentences of docs/semantics.md, with a bound that is soon reached."""
    bound = data.draw(st.sampled_from([100, 400, 1_500]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sessions, "RESULT_BYTES_MAX", bound)
        asking = Asking()
        other = asking.open()
        asking.acquire(other, "a")
        session = asking.open()
        told: dict[int, Any] = {}
        acked = 1
        for _ in range(data.draw(st.integers(1, 40))):
            number, op = data.draw(st.integers(acked, acked + 12)), data.draw(OPS)
            acked = max(acked, min(number, data.draw(st.sampled_from([0, 0, acked + 1, number]))))
            there = {n: result for n, result in told.items() if n >= acked}
            has = sum(len(encode(result)) for result in there.values() if type(result) not in SMALL)
            result = asking.send(session, number, op, acked=acked)
            if number in there:
                assert result == there[number]
                continue
            if has >= bound and number != acked and not isinstance(op, LETS_GO):
                assert result.code == commands.BUSY
            else:
                assert getattr(result, "code", "") != commands.BUSY
                told[number] = result
                if isinstance(op, CancelAcquire) and acked <= op.number:
                    told.setdefault(op.number, asking.machine.sessions[session].results[op.number])
            row = asking.machine.sessions[session]
            assert row.results == {n: result for n, result in told.items() if n >= acked}
            if data.draw(st.booleans()):
                asking.machine = restored(asking.machine)
        last = max(told, default=1) + 1
        assert getattr(asking.send(session, last, PutKey("a", b""), acked=last), "code", "") != commands.BUSY
