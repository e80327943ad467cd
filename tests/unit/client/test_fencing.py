"""Fences: what is written to refuses whoever held the lock before."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.errors import InvalidRequest
from coordinator.client.fencing import Fenced, FileFence, update_rows


def test_a_file_takes_equal_and_higher_tokens_and_refuses_lower_ones(tmp_path: Path):
    fence = FileFence(tmp_path / "report")
    assert fence.highest == 0
    for token in (5, 5, 7):
        fence.write(token, b"by %d" % token)
    with pytest.raises(Fenced, match=r"report has seen 7, and refuses the fencing token 6") as refused:
        fence.write(6, b"late")
    assert (refused.value.token, refused.value.highest) == (6, 7)
    assert (fence.path.read_bytes(), FileFence(tmp_path / "report").highest) == (b"by 7", 7)


def test_the_token_is_kept_before_what_is_written_under_it(tmp_path: Path):
    fence = FileFence(tmp_path / "report")
    with fence.guard(3):
        assert FileFence(tmp_path / "report").highest == 3, "should it die here, nobody with a lower one gets in"
    with pytest.raises(Fenced):
        fence.write(2, b"late")


def test_nobody_gets_in_while_another_writes(tmp_path: Path):
    fence = FileFence(tmp_path / "report")
    with fence.guard(3), open(tmp_path / "report.fence.lock", "ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fence.write(4, b"")


def test_a_thread_writes_within_its_own_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It waited for itself, for ever."""
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, how: flock(file, how | fcntl.LOCK_NB))
    fence = FileFence(tmp_path / "report")
    with fence.guard(3):
        fence.write(3, b"one")
        with FileFence(tmp_path / "report").guard(3):
            fence.write(3, b"two")
        with pytest.raises(Fenced, match="has seen 3, and refuses the fencing token 2"):
            fence.write(2, b"late")
        with pytest.raises(InvalidRequest, match="by the token 3, and can not by 4 as well"):
            fence.write(4, b"later")
        with open(tmp_path / "report.fence.lock", "ab") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert fence.path.read_bytes() == b"two"
    fence.write(4, b"later")


def test_another_thread_does_not_come_into_a_guard(tmp_path: Path):
    fence = FileFence(tmp_path / "report")
    written: list[bytes] = []

    def write() -> None:
        fence.write(3, b"theirs")
        written.append(fence.path.read_bytes())

    thread = threading.Thread(target=write)
    with fence.guard(3):
        thread.start()
        assert not written
    thread.join(5)
    assert written == [b"theirs"]


def test_a_process_that_was_forked_within_a_guard_keeps_nobody_out_behind_it(tmp_path: Path):
    """As a worker that another thread starts: it kept the fence for as long as it lived, and every writer waited."""
    fence = FileFence(tmp_path / "report")
    may_end, end = os.pipe()
    with fence.guard(3):
        child = os.fork()
        if not child:
            os.close(end)
            os.read(may_end, 1)  # Until its parent is done, or dead.
            os._exit(0)
    try:
        with open(tmp_path / "report.fence.lock", "ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(end)
        os.close(may_end)
        os.waitpid(child, 0)


def test_a_forked_child_that_leaves_its_parents_guard_lets_nobody_in(tmp_path: Path):
    fence = FileFence(tmp_path / "report")
    parent, child = os.getpid(), 0
    with fence.guard(3):
        with contextlib.ExitStack() as within:
            within.enter_context(fence.guard(3))
            child = os.fork()
        if child:
            os.waitpid(child, 0)
            with open(tmp_path / "report.fence.lock", "ab") as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.getpid() != parent:
        os._exit(0)


def test_a_fence_that_is_damaged_lets_nobody_in(tmp_path: Path):
    (tmp_path / "report.fence").write_bytes(b"")
    with pytest.raises(ValueError, match="invalid literal"):
        FileFence(tmp_path / "report").write(3, b"")
    assert not os.path.exists(tmp_path / "report")


@pytest.mark.parametrize("token", [0, -1, 2**53, True, "3"])
def test_what_is_no_token_is_refused(tmp_path: Path, token: Any):
    with pytest.raises(InvalidRequest, match="a fencing token is a whole number from 1 to"):
        FileFence(tmp_path / "report").write(token, b"")
    with pytest.raises(InvalidRequest):
        update_rows(Rows([0]), token)


class Rows:
    """Rows of a table, of which each is its token."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self._up_to = -1

    def filter(self, **conditions: int) -> Rows:
        (self._up_to,) = conditions.values()
        return self

    def update(self, **values: int) -> int:
        before = len([token for token in self.tokens if token <= self._up_to])
        self.tokens = [values["fencing_token"] if token <= self._up_to else token for token in self.tokens]
        return before


def test_rows_take_equal_and_higher_tokens_and_refuse_lower_ones():
    rows = Rows([0, 6])
    assert update_rows(rows, 6) == 2
    with pytest.raises(Fenced, match="refuses the fencing token 5"):
        update_rows(rows, 5)
    assert rows.tokens == [6, 6]


def test_who_may_read_a_file_stays_so(tmp_path: Path):
    """What its owner alone might read everybody could, from the first write on."""
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o600)
    FileFence(path).write(1, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    path.chmod(0o440)
    (tmp_path / "secret.fence.new").touch(0o440)  # Of one that was killed.
    FileFence(path).write(2, b"newer")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"newer", 0o440)


def test_whose_a_file_is_stays_so_or_no_other_group_may_more_than_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a program alone might read, another user's fenced write took from it, or gave to that one's group."""
    path = tmp_path / "shared"
    path.write_bytes(b"old")
    path.chmod(0o664)
    owned = path.stat()
    taken: list[tuple[int, int]] = []
    refused: set[int] = set()

    def change(descriptor: int, owner: int, group: int) -> None:
        if owner in refused:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        taken.append((owner, group))

    monkeypatch.setattr(os, "fchown", change)
    FileFence(path).write(1, b"by one who may do all")
    assert (set(taken), path.stat().st_mode & 0o777) == ({(owned.st_uid, owned.st_gid)}, 0o664)
    refused.add(owned.st_uid)
    taken.clear()
    FileFence(path).write(2, b"by one of its group")
    assert (set(taken), path.stat().st_mode & 0o777) == ({(-1, owned.st_gid)}, 0o664)
    refused.add(-1)
    FileFence(path).write(3, b"by another")
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_lies_beside_a_file_and_is_another_stays(tmp_path: Path):
    """`settings.new` was deleted by each write of `settings`, whosever it was."""
    (tmp_path / "report.new").write_bytes(b"somebody's")
    FileFence(tmp_path / "report").write(1, b"one")
    FileFence(tmp_path / "settings.new").write(1, b"theirs")
    FileFence(tmp_path / "settings").write(2, b"mine")
    assert (tmp_path / "report.new").read_bytes() == b"somebody's"
    assert (tmp_path / "settings.new").read_bytes() == b"theirs"


def test_what_a_link_leads_to_is_written(tmp_path: Path):
    """The link became a file, and whoever read what it had led to had the old content for ever."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "report").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "report")
    FileFence(tmp_path / "link").write(3, b"new")
    assert (tmp_path / "elsewhere" / "report").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    assert FileFence(tmp_path / "link").highest == 3
