"""docs/semantics.md says of every command, query and result how it is encoded, and of every limit how much it is."""

from __future__ import annotations

import re
import typing

import pytest

from coordinator.statemachine import (
    commands,
    files,
    history,
    lock_commands,
    lock_events,
    locks,
    namespace,
    permissions,
    principals,
    results,
    rights,
    sessions,
)
from coordinator.statemachine.commands import RIGHTS
from tests.unit import pages
from tests.unit.spelling import row, rows

PATH = pages.DOCS / "semantics.md"
PAGE = PATH.read_text()


PARTS = [
    commands.Command,
    commands.Holder,
    files.Compare,
    files.KeyView,
    files.ChildView,
    files.ChangeView,
    lock_commands.Grant,
    lock_commands.Waiter,
    lock_commands.LockWait,
    lock_commands.Break,
    lock_commands.LockEvent,
    permissions.Permission,
    permissions.Quota,
    permissions.HeldPermission,
    permissions.RoleView,
    permissions.Used,
]


@pytest.mark.parametrize(
    "line",
    [
        *rows(commands.ClientOp),
        *rows(commands.Query),
        *rows(commands.Result),
        *(row(kind) for kind in PARTS),
    ],
)
def test_the_page_says_how_each_is_encoded(line):
    assert line in PAGE


def test_nothing_else_is_said_to_be_encoded():
    wire = pages.section(PATH, "Wire form")
    said = [line for line in wire.splitlines() if re.match(r"\| \d* ?\| `", line)]
    assert len(said) == sum(
        map(len, (*map(typing.get_args, (commands.ClientOp, commands.Query, commands.Result)), PARTS))
    )


def test_the_page_says_what_a_transaction_may_hold():
    (said,) = re.findall(r"An \*operation\* is one of (.*?), with the tag", PAGE, re.DOTALL)
    assert sorted(pages.words(said)) == sorted(kind.__name__ for kind in typing.get_args(commands.TransactionOp))


LIMITS = {
    "NAME_BYTES_MAX": commands.NAME_BYTES_MAX,
    "VALUE_BYTES_MAX": commands.VALUE_BYTES_MAX,
    "DEPTH_MAX": files.DEPTH_MAX,
    "CHILDREN_MAX": files.CHILDREN_MAX,
    "KEYS_MAX": namespace.KEYS_MAX,
    "DIRECTORIES_MAX": namespace.DIRECTORIES_MAX,
    "KEY_BYTES_MAX": namespace.KEY_BYTES_MAX,
    "DELETED_MAX": files.DELETED_MAX,
    "SORTED_MAX": files.SORTED_MAX,
    "LIST_LIMIT_MAX": commands.LIST_LIMIT_MAX,
    "PAGE_BYTES_MAX": files.PAGE_BYTES_MAX,
    "SCANNED_MAX": files.SCANNED_MAX,
    "CHANGES_MAX": history.CHANGES_MAX,
    "HISTORY_BYTES_MAX": history.HISTORY_BYTES_MAX,
    "ATTACHED_MAX": namespace.ATTACHED_MAX,
    "EPHEMERALS_MAX": namespace.EPHEMERALS_MAX,
    "COMPARES_MAX": files.COMPARES_MAX,
    "OPERATIONS_MAX": files.OPERATIONS_MAX,
    "NESTING_MAX": files.NESTING_MAX,
    "READ_NESTING_MAX": files.READ_NESTING_MAX,
    "TRANSACTION_READ_BYTES_MAX": files.TRANSACTION_READ_BYTES_MAX,
    "TRANSACTION_ROWS_MAX": files.TRANSACTION_ROWS_MAX,
    "NAMES_MAX": lock_commands.NAMES_MAX,
    "LIMIT_MAX": lock_commands.LIMIT_MAX,
    "LOCK_DELAY_MS_MAX": lock_commands.LOCK_DELAY_MS_MAX,
    "REASON_BYTES_MAX": lock_commands.REASON_BYTES_MAX,
    "BREAKS_MAX": lock_commands.BREAKS_MAX,
    "LOCK_EVENTS_MAX": lock_events.LOCK_EVENTS_MAX,
    "CYCLE_STEPS_MAX": lock_commands.CYCLE_STEPS_MAX,
    "LOCKS_MAX": locks.LOCKS_MAX,
    "PLACES_OF_SESSION_MAX": locks.PLACES_OF_SESSION_MAX,
    "WAITERS_MAX": locks.WAITERS_MAX,
    "SESSIONS_MAX": sessions.SESSIONS_MAX,
    "RESULTS_MAX": sessions.RESULTS_MAX,
    "RESULT_BYTES_MAX": results.RESULT_BYTES_MAX,
    "ALL_RESULT_BYTES_MAX": results.ALL_RESULT_BYTES_MAX,
    "ALL_RESULT_BYTES_END": results.ALL_RESULT_BYTES_END,
    "RESULT_COST": results.RESULT_COST,
    "MESSAGE_CHARS_MAX": results.MESSAGE_CHARS_MAX,
    "NONCE_BYTES_MAX": sessions.NONCE_BYTES_MAX,
    "TTL_MS_MIN": commands.TTL_MS_MIN,
    "TTL_MS_MAX": commands.TTL_MS_MAX,
    "PRINCIPALS_MAX": principals.PRINCIPALS_MAX,
    "TOKENS_MAX": principals.TOKENS_MAX,
    "KEY_BYTES": commands.KEY_BYTES,
    "WANTED_BYTES_MAX": commands.WANTED_BYTES_MAX,
    "PREFIXES_MAX": principals.PREFIXES_MAX,
    "PERMISSIONS_MAX": permissions.PERMISSIONS_MAX,
    "ROLES_MAX": permissions.ROLES_MAX,
    "ROLES_HELD_MAX": permissions.ROLES_HELD_MAX,
    "QUOTA_MAX": permissions.QUOTA_MAX,
}


@pytest.mark.parametrize(("name", "value"), LIMITS.items())
def test_the_page_says_each_limit(name, value):
    assert re.search(rf"\| `{name}` \| {value:,} \|", PAGE)


def test_the_page_says_which_right_each_takes():
    for kind, rule in rights.RULES.items():
        needed = " or ".join(rule.rights) or "none"
        assert re.search(rf"`{kind.__name__}`[^|\n]*\| {needed} \|", PAGE), (kind.__name__, needed)
    assert all(right in PAGE for right in RIGHTS)


def test_the_page_explains_each_code():
    codes = [value for name, value in vars(commands).items() if isinstance(value, str) and name.isupper()]
    for code in codes:
        if code not in RIGHTS:
            assert f"`{code}`" in PAGE, code


def test_the_page_says_what_names_are():
    for pattern in (commands.PRINCIPAL_NAME, permissions.ROLE_NAME, commands.TOKEN_ID):
        assert f"`{pattern.pattern}`" in PAGE
