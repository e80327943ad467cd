"""Errors as they are handed on, to another process or to whoever copies them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from celery import Celery
from celery.backends.base import Backend

from coordinator.client import errors
from coordinator.client.errors import ConclaveError, LockNotAcquired
from coordinator.client.fencing import Fenced
from coordinator.statemachine import files, lock_commands
from coordinator.statemachine.commands import Holder

ERRORS = (
    errors.InvalidRequest("a ttl is a number"),
    errors.Closed(),
    errors.ClosedUnanswered(),
    errors.OutcomeUnknown("sent"),
    errors.Busy("no room", retry_after=0.25),
    errors.Changed(files.Mismatch(7, 2, 3)),
    errors.Compacted(7),
    errors.Aborted((1, 2), errors.NotFound("there is none")),
    errors.LockNotAcquired("a", Holder(7, 1, "root")),
    errors.LockNotAcquired("a", None),
    errors.Deadlock(((7, "a"), (8, "b"))),
    errors.Broken(lock_commands.Break(1, 9, "a", Holder(7, 1, "root"), 5, "admin", "why")),
    Fenced("report.json", 1, 2),
)


def said(error: ConclaveError) -> list[str]:
    return [
        type(error).__name__,
        str(error),
        repr(error.args),
        *(f"{name}={error.__dict__[name]}" for name in error.__dict__),
    ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_that_is_handed_on_says_the_same(error: ConclaveError, again: Callable[[object], ConclaveError]):
    assert said(again(error)) == said(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_who_waits_for_the_result_of_a_celery_task_is_told_its_error(error: ConclaveError):
    """Celery hands it on by its class and `args`. What could not be made of those was a bare Exception, which nobody
    catches by its class."""
    backend = Backend(Celery("theirs", set_as_current=False))
    told = backend.exception_to_python(backend.decode(backend.encode(backend.prepare_exception(error))))
    assert type(told) is type(error)
    assert str(told) == str(error)
    assert all(hasattr(told, name) for name in error.__dict__)


def test_all_that_take_more_than_a_message_are_among_these():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ConclaveError)}
    assert {kind for kind in kinds if "__init__" in vars(kind)} <= {type(error) for error in ERRORS}


def not_acquired() -> None:
    raise LockNotAcquired("a", None)


def test_an_error_in_a_pool_of_processes_is_told_and_the_pool_goes_on():
    """It could not be read: the pool was broken, and one of `multiprocessing` never answered anything again."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(LockNotAcquired, match="'a' was not acquired in time"):
            pool.submit(not_acquired).result(30)
        assert pool.submit(len, "abc").result(30) == 3
