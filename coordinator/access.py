"""The web process's way into clusters: its clients, and on whose behalf it uses them.

The web process is principal `web`, which may act for others. Whatever a person asks for is done as principal
`user:NAME`, whose rights in the log are made to follow the permissions that Django has for them now; whatever a bearer
token asks for is done as the principal that the log has for the token, with no more than the token may. The log
decides every right (rule 9): this module only says who is asking. Nothing here needs the database for a bearer token.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import weakref
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import DatabaseError

from coordinator import wire
from coordinator.client import AsyncClient, errors
from coordinator.database import asking
from coordinator.models import Node
from coordinator.statemachine import commands, permissions

log = logging.getLogger(__name__)

DEFAULT_CLUSTER: Final = "default"
ANSWER_TIMEOUT_S: Final = 5.0
"""How long a call of the API waits for a leader: longer than an election, shorter than most callers' patience."""
QUICK_TIMEOUT_S: Final = 0.5
TOKEN_FRESH_S: Final = 2.0
"""A verified token is asked for again after this; so long may a revoked one still be taken for its principal here."""
TOKENS_MAX: Final = 4_096
PRINCIPAL_FRESH_S: Final = 30.0
"""A person's principal is looked at again in the log after this, even when Django's permissions did not change."""
PRINCIPALS_MAX: Final = 4_096
DIRECTORY_FRESH_S: Final = 2.0
CLUSTER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

RIGHT_OF_PERMISSION: Final = {
    "conclave.read_state": commands.READ,
    "conclave.write_keys": commands.WRITE,
    "conclave.use_locks": commands.LOCK,
    "conclave.administer": commands.ADMINISTER,
}


class UnknownCluster(errors.NotFound):
    """There is no cluster of that name."""


class BadToken(errors.Forbidden):
    """A bearer token that is malformed, unknown or revoked. The message never repeats it."""


class Person(NamedTuple):
    """A Django user as read from the database just now."""

    username: str
    rights: tuple[str, ...]


# --- clients: one for each cluster and event loop -------------------------------------------------

UNUSED_S_MAX: Final = 600.0
"""A client of a cluster that nobody asked about for so long is closed once another cluster is asked about: clusters
come and go, and each client has connections."""


class _Kept:
    __slots__ = ("client", "used_s")

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.used_s = 0.0


_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Kept]] = weakref.WeakKeyDictionary()


def make_client(cluster: str) -> AsyncClient:
    return AsyncClient(
        settings.DATA.mailbox_redis_url(settings.CONCLAVE),
        str(settings.DATA.web_token()),
        cluster=cluster,
        timeout=ANSWER_TIMEOUT_S,
    )


def client(cluster: str = DEFAULT_CLUSTER) -> AsyncClient:
    """This event loop's client of a cluster, as principal `web`. It connects when it is first used."""
    of_loop = _clients.setdefault(asyncio.get_running_loop(), {})
    kept = of_loop.get(cluster)
    if kept is None:
        _close_unused(of_loop)
        kept = of_loop[cluster] = _Kept(make_client(cluster))
    kept.used_s = time.monotonic()
    return kept.client


def _close_unused(of_loop: dict[str, _Kept]) -> None:
    now_s = time.monotonic()
    for name, kept in [*of_loop.items()]:
        is_unused = now_s - kept.used_s > UNUSED_S_MAX and not kept.client.figures().calls_pending
        if is_unused and name != DEFAULT_CLUSTER:
            del of_loop[name]
            spawn(kept.client.aclose(), f"close the client of {name}")


def clients() -> dict[str, AsyncClient]:
    """Those of this event loop that there are, by cluster."""
    return {name: kept.client for name, kept in _clients.get(asyncio.get_running_loop(), {}).items()}


async def close() -> None:
    """Close this event loop's clients and end what still runs in the background."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in _background if task.get_loop() is loop]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for each in _clients.pop(loop, {}).values():
        await each.client.aclose()


_background: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run on past the end of the request. A defect is logged even when nobody awaits the task any more."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _background.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _background.discard(task)
    if task.cancelled() or (error := task.exception()) is None:
        return
    if isinstance(error, errors.ConclaveError):
        log.debug("%s: %s", task.get_name(), error)
    else:
        log.error("%s", task.get_name(), exc_info=error)


# --- clusters -------------------------------------------------------------------------------------


class _Directory:
    """Names of clusters, as a node last told them."""

    def __init__(self) -> None:
        self.at = float("-inf")
        self.names: frozenset[str] = frozenset()


_directory = _Directory()


async def known_cluster(name: str) -> str:
    """`name`, where such a cluster exists. Raises UnknownCluster, and Unavailable where no node can be asked, or one
    that may have it does not answer."""
    if name == DEFAULT_CLUSTER:
        return name
    if not CLUSTER_NAME.fullmatch(name):
        raise UnknownCluster(f"there is no cluster {name[:63]!r}")
    if time.monotonic() - _directory.at > DIRECTORY_FRESH_S:
        directory = await client().directory()
        _directory.at, _directory.names = time.monotonic(), frozenset(entry.name for entry in directory.clusters)
    if name not in _directory.names:
        await _look_for(name)
    return name


async def _look_for(name: str) -> None:
    """Of a cluster that no node told of in time: each knows those alone of which it hosts a replica, and those may be
    down. Raises UnknownCluster where all that ever had one answer, and have none any more; else Unavailable."""
    try:
        had = await asking(_nodes_that_had)(name)
    except DatabaseError:
        raise errors.Unavailable(
            f"no node that answers has a cluster {name!r}, and the record can not be read"
        ) from None
    if not had:
        raise UnknownCluster(f"there is no cluster {name!r}")
    reports = await client(name).status()
    if any(report is not None and report.replica and report.cluster_name == name for report in reports.values()):
        return
    if any(reports.get(node) is None for node in had):
        raise errors.Unavailable(f"no node that answers has a cluster {name!r}, and one that had it does not answer")
    raise UnknownCluster(f"there is no cluster {name!r}")


def _nodes_that_had(name: str) -> list[str]:
    """Nodes that the record knows to have had a replica of a cluster of this name, but for those that are retired.
    Raises DatabaseError."""
    nodes = Node.objects.filter(replicas__cluster__name=name, retired_at=None)
    return sorted(set(nodes.values_list("name", flat=True)))


# --- people ---------------------------------------------------------------------------------------

_ensured: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}


def principal_name_problem(username: str) -> str | None:
    """Why a user of this name cannot act in a cluster; None where they can."""
    if commands.PRINCIPAL_NAME.fullmatch(f"user:{username}"):
        return None
    return (
        f"the user name {username!r} cannot be a principal: expected 1 to 150 characters that begin with an unaccented "
        "letter or a digit and hold those and . _ @ + - only"
    )


def _read_person(user_id: Any) -> Person:
    model = get_user_model()
    try:
        user = model._default_manager.get(pk=user_id, is_active=True)
    except model.DoesNotExist:
        raise errors.Forbidden("this user is not there any more, or not active") from None
    if problem := principal_name_problem(user.get_username()):
        raise errors.Forbidden(problem)
    if user.is_superuser:
        return Person(user.get_username(), commands.RIGHTS)
    permissions = user.get_all_permissions()
    return Person(
        user.get_username(), tuple(right for name, right in RIGHT_OF_PERMISSION.items() if name in permissions)
    )


async def act_as_user(user_id: Any, cluster: str = DEFAULT_CLUSTER) -> str:
    """The principal of a user, ready to be acted for: its rights in the log are what Django allows the user now.

    Raises Forbidden (gone, inactive, or of a name that cannot be a principal), Unavailable, OutcomeUnknown.
    """
    person = await asking(_read_person)(user_id)
    name = f"user:{person.username}"
    at, rights = _ensured.get((cluster, name), (float("-inf"), ()))
    if rights != person.rights or time.monotonic() - at > PRINCIPAL_FRESH_S:
        await _make_rights_follow(cluster, name, person.rights)
    return name


def forget_user(principal: str, cluster: str = DEFAULT_CLUSTER) -> None:
    """Look at the principal in the log again before it is next acted for: the cluster has just refused it something."""
    _ensured.pop((cluster, principal), None)


async def _make_rights_follow(cluster: str, name: str, rights: tuple[str, ...]) -> None:
    web = client(cluster)
    try:
        view = await web.query(commands.GetPrincipal(name))
        current = isinstance(view, commands.PrincipalView) and set(view.rights) == set(rights)
    except errors.NotFound:
        current = False
    if not current:
        await web.command(commands.SetPrincipal(name, rights))
    if len(_ensured) >= PRINCIPALS_MAX:
        _ensured.clear()
    _ensured[cluster, name] = (time.monotonic(), rights)


# --- bearer tokens --------------------------------------------------------------------------------


class _Verified(NamedTuple):
    at: float
    principal: str
    key: bytes
    act_for: str
    """What the cluster is told of whom to act for."""


_tokens: dict[tuple[str, str], _Verified] = {}


async def principal_of_token(text: str, cluster: str = DEFAULT_CLUSTER) -> str:
    """The principal that a bearer token speaks for. Raises BadToken; Unavailable where no leader can be asked."""
    token = _parse(text)
    known = _tokens.get((cluster, token.token_id))
    if known is None or time.monotonic() - known.at > TOKEN_FRESH_S:
        known = await _ask_for_token(cluster, token.token_id)
    return _checked(known, token)


async def reader_of_token(text: str, cluster: str = DEFAULT_CLUSTER) -> str:
    """Like `principal_of_token`, for what must be told while there is no leader: a cluster's own status.

    Where the leader does not answer at once, it is enough that the token was good when a leader was last asked, or
    that any node still knows it. Raises BadToken; Unavailable where no node can be asked at all.
    """
    token = _parse(text)
    known = _tokens.get((cluster, token.token_id))
    if known is not None and time.monotonic() - known.at <= TOKEN_FRESH_S:
        return _checked(known, token)
    try:
        return _checked(await _ask_for_token(cluster, token.token_id, timeout=QUICK_TIMEOUT_S), token)
    except errors.Unavailable:
        if known is not None:
            return _checked(known, token)
    return await _ask_any_node(token, cluster)


def act_for_token(text: str, cluster: str = DEFAULT_CLUSTER) -> str:
    """How to act for whoever has a bearer token that was verified here; "" where no leader was asked about it."""
    known = _tokens.get((cluster, _parse(text).token_id))
    return "" if known is None else known.act_for


def _parse(text: str) -> wire.Token:
    try:
        return wire.Token.parse(text)
    except ValueError as error:
        raise BadToken(str(error)) from None


def _checked(known: _Verified, token: wire.Token) -> str:
    if not hmac.compare_digest(known.key, token.key):
        raise BadToken("this token is not known, or was revoked")
    return known.principal


async def _ask_for_token(cluster: str, token_id: str, timeout: float | None = None) -> _Verified:
    try:
        view, act_for = await _token_and_how_to_act(cluster, token_id, timeout)
    except errors.NotFound:
        _tokens.pop((cluster, token_id), None)
        raise BadToken("this token is not known, or was revoked") from None
    if len(_tokens) >= TOKENS_MAX:
        _tokens.clear()
    known = _tokens[cluster, token_id] = _Verified(time.monotonic(), view.principal, view.key, act_for)
    return known


async def _token_and_how_to_act(
    cluster: str, token_id: str, timeout: float | None
) -> tuple[permissions.TokenAccess | commands.TokenView, str]:
    try:
        access = await client(cluster).query(permissions.GetTokenAccess(token_id), timeout=timeout)
    except errors.InvalidRequest:
        # A node of an older version, which knows of no narrowed tokens.
        view = await client(cluster).query(commands.GetToken(token_id), timeout=timeout)
        assert isinstance(view, commands.TokenView), view
        return view, view.principal
    assert isinstance(access, permissions.TokenAccess), access
    return access, f"{wire.FOR_TOKEN}{token_id}"


async def _ask_any_node(token: wire.Token, cluster: str) -> str:
    """A node that has a replica answers only what is signed with a key that its own copy of the log knows. One that has
    none can verify nobody: what it says is unsigned, and proves nothing."""
    async with AsyncClient(
        settings.DATA.mailbox_redis_url(settings.CONCLAVE), str(token), cluster=cluster, timeout=QUICK_TIMEOUT_S
    ) as theirs:
        try:
            reports = await theirs.status()
        except errors.Forbidden:
            raise BadToken("this token is not known, or was revoked") from None
    if not any(report is not None and report.replica for report in reports.values()):
        raise errors.Unavailable("no leader answers, and no node that does could check this token")
    return f"token:{token.token_id}"
