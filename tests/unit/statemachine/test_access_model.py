"""Rights and quotas against a model that works out everything anew each time: who may do what is looked for among all
permissions, and what somebody has is counted over all keys, sessions and places in line."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.statemachine import commands
from coordinator.statemachine.commands import (
    RIGHTS,
    AddToken,
    AwaitGrant,
    DeleteKey,
    ExpireSessions,
    Failure,
    GetKey,
    OpenSession,
    PutKey,
    RemovePrincipal,
    RemoveToken,
    SetPrincipal,
    Transact,
)
from coordinator.statemachine.files import CreateFile, DeleteRange, ReadRange
from coordinator.statemachine.lock_commands import Acquire, Release
from coordinator.statemachine.permissions import (
    CLUSTER,
    EACH,
    GetQuota,
    NarrowToken,
    Permission,
    Quota,
    RemoveRole,
    SetPermission,
    SetQuota,
    SetRole,
    SetRoles,
    Used,
)
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored

NAMES = ["p", "q"]
ROLES = ["r", "s"]
TOKENS = {"c" * 16: "p", "d" * 16: "q"}
KEYS = ["a", "ab", "a/b", "b", "b/c"]
PREFIXES = ["", "a", "a/", "ab", "b", "b/", "x"]
KEY = st.sampled_from(KEYS)
NAME = st.sampled_from(NAMES)
SOME_RIGHTS = st.lists(st.sampled_from(RIGHTS), max_size=3).map(tuple)
PERMISSIONS = st.dictionaries(st.sampled_from(PREFIXES), SOME_RIGHTS, max_size=3).map(
    lambda found: tuple(Permission(prefix, rights) for prefix, rights in found.items())
)
AMOUNT = st.sampled_from([-1, -1, 0, 1, 2, 3])
QUOTAS = st.builds(
    Quota,
    st.sampled_from([-1, 0, 3, 6]),
    AMOUNT,
    AMOUNT,
    st.just(-1),
    AMOUNT,
)


class AccessAgainstAModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.asking = Asking()
        self.web = self.asking.open("web")
        self.said: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        """Of each principal that is there: the rights and the prefixes that SetPrincipal gave."""
        self.permissions: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        self.roles: dict[str, dict[str, None]] = {}
        """Of each principal."""
        self.tokens: dict[str, str] = {}
        self.narrow: dict[str, tuple[Permission, ...]] = {}
        self.quotas: dict[str, Quota] = {}
        self.keys: dict[str, tuple[str, int]] = {}
        """Owner and size."""
        self.sessions: dict[int, str] = {self.web: "web"}
        self.waiting: list[tuple[int, str]] = []
        self.holder: dict[str, int] = {}
        self.ephemeral: dict[str, int] = {}
        for name in NAMES:
            self.set_principal(name, ("read", "write", "lock"), ())
            self.add_token(next(token for token, owner in TOKENS.items() if owner == name))
        self.sessions[self.asking.open("p")] = "p"
        self.sessions[self.asking.open("q")] = "q"

    def command(self, op):
        return self.asking.ask(self.web, op, "web")

    # --- the model --------------------------------------------------------------------------------

    def may(self, name: str, right: str, key: str, token: str = "") -> bool:
        if name not in self.said or (token and self.tokens.get(token) != name):
            return False
        rights, prefixes = self.said[name]
        found = right in rights and (not prefixes or any(key.startswith(prefix) for prefix in prefixes))
        for holder in [("principal", name), *(("role", role) for role in self.roles.get(name, ()))]:
            held = self.permissions.get(holder, {})
            found = found or any(right in held[prefix] and key.startswith(prefix) for prefix in held)
        if token in self.narrow:
            found = found and any(right in one.rights and key.startswith(one.prefix) for one in self.narrow[token])
        return found

    def used(self, who: str) -> Used:
        """ "": the cluster."""
        keys = [(key, size) for key, (owner, size) in self.keys.items() if who in ("", owner)]
        sessions = [session for session, name in self.sessions.items() if who in ("", name)]
        waiting = [session for session, _ in self.waiting if session in sessions]
        return Used(sum(len(key) + size for key, size in keys), len(keys), len(sessions), len(waiting))

    def fits(self, owner: str, **more: int) -> bool:
        for who in ("", owner):
            quota = self.quotas.get(who) or (self.quotas.get(EACH) if who else None)
            for what, amount in more.items():
                most = -1 if quota is None else getattr(quota, what)
                if amount > 0 and most >= 0 and getattr(self.used(who), what) + amount > most:
                    return False
        return True

    def judged(self, result, *, allowed: bool, fits: bool = True) -> bool:
        """Was it done, as it should be?"""
        code = result.code if isinstance(result, Failure) else ""
        expected = commands.FORBIDDEN if not allowed else "" if fits else commands.FULL
        assert code == expected, result
        return allowed and fits

    def end(self, ended):
        self.waiting = [(session, name) for session, name in self.waiting if session not in ended]
        for name in [name for name, session in self.holder.items() if session in ended]:
            del self.holder[name]
        for key in [key for key, session in self.ephemeral.items() if session in ended]:
            del self.keys[key], self.ephemeral[key]
        for session in ended:
            del self.sessions[session]
        self.hand_on()

    def hand_on(self):
        for session, name in [*self.waiting]:
            if name not in self.holder:
                self.waiting.remove((session, name))
                self.holder[name] = session

    # --- what administrators do -------------------------------------------------------------------

    @rule(name=NAME, rights=SOME_RIGHTS, prefixes=st.lists(st.sampled_from(PREFIXES), max_size=2).map(tuple))
    def set_principal(self, name, rights, prefixes):
        self.command(SetPrincipal(name, rights, prefixes))
        self.said[name] = (rights, prefixes)

    @rule(name=NAME)
    def remove_principal(self, name):
        self.command(RemovePrincipal(name))
        self.said.pop(name, None)
        self.roles.pop(name, None)
        self.permissions.pop(("principal", name), None)
        self.quotas.pop(name, None)
        for token in [token for token, owner in self.tokens.items() if owner == name]:
            del self.tokens[token]
            self.narrow.pop(token, None)
        self.waiting = [(session, lock) for session, lock in self.waiting if self.sessions[session] != name]
        self.set_principal(name, ("read", "write", "lock"), ())

    @rule(holder=st.sampled_from(["principal", "role"]), which=st.integers(0, 1), data=st.data())
    def set_permission(self, holder, which, data):
        name = (NAMES if holder == "principal" else ROLES)[which]
        self.permits(holder, name, data.draw(st.sampled_from(PREFIXES)), data.draw(SOME_RIGHTS))

    def permits(self, holder, name, prefix, rights):
        done = self.command(SetPermission(holder, name, prefix, rights))
        if holder == "role" and ("role", name) not in self.permissions:
            assert done.code == commands.NOT_FOUND
            return
        held = self.permissions.setdefault((holder, name), {})
        assert done.existed == (prefix in held)
        held.pop(prefix, None)
        if rights:
            held[prefix] = rights

    @rule(name=st.sampled_from(ROLES), permissions=PERMISSIONS)
    def set_role(self, name, permissions):
        self.command(SetRole(name, permissions))
        self.permissions["role", name] = {one.prefix: one.rights for one in permissions if one.rights}

    @rule(name=st.sampled_from(ROLES))
    def remove_role(self, name):
        assert self.command(RemoveRole(name)).existed == (("role", name) in self.permissions)
        self.permissions.pop(("role", name), None)
        for roles in self.roles.values():
            roles.pop(name, None)

    @rule(name=NAME, roles=st.sets(st.sampled_from(ROLES)).map(lambda roles: tuple(sorted(roles))))
    def set_roles(self, name, roles):
        done = self.command(SetRoles(name, roles))
        if all(("role", role) in self.permissions for role in roles):
            self.roles[name] = dict.fromkeys(roles)
        else:
            assert done.code == commands.NOT_FOUND

    @rule(token=st.sampled_from([*TOKENS]))
    def add_token(self, token):
        self.command(AddToken(token, TOKENS[token], b"k" * 32))
        self.tokens[token] = TOKENS[token]

    @rule(token=st.sampled_from([*TOKENS]))
    def remove_token(self, token):
        self.command(RemoveToken(token))
        self.tokens.pop(token, None)
        self.narrow.pop(token, None)

    @rule(token=st.sampled_from([*TOKENS]), permissions=st.one_of(st.none(), PERMISSIONS, PERMISSIONS))
    def narrow_token(self, token, permissions):
        done = self.command(NarrowToken(token, permissions))
        if token not in self.tokens:
            assert done.code == commands.NOT_FOUND
        elif permissions is None:
            self.narrow.pop(token, None)
        else:
            self.narrow[token] = permissions

    @rule(who=st.sampled_from([CLUSTER, EACH, *NAMES]), quota=st.one_of(st.none(), QUOTAS, QUOTAS))
    def set_quota(self, who, quota):
        assert self.command(SetQuota(who, quota)).existed == (who in self.quotas)
        self.quotas.pop(who, None)
        if quota is not None:
            self.quotas[who] = quota

    # --- what everybody does ----------------------------------------------------------------------

    def somebody(self, data):
        session = data.draw(st.sampled_from([session for session in self.sessions if session != self.web]))
        name = self.sessions[session]
        token = data.draw(st.sampled_from(["", *(token for token, owner in TOKENS.items() if owner == name)]))
        return session, name, token

    @rule(data=st.data(), key=KEY, size=st.integers(0, 3))
    def put(self, data, key, size):
        session, name, token = self.somebody(data)
        owner, before = self.keys.get(key, (name, 0))
        new = key not in self.keys
        fits = self.fits(owner, keys=int(new), key_bytes=size - before + (len(key) if new else 0))
        result = self.asking.ask(session, PutKey(key, bytes(size)), name, token=token)
        if self.judged(result, allowed=self.may(name, "write", key, token), fits=fits):
            self.keys[key] = (owner, size)

    @rule(data=st.data(), key=KEY, size=st.integers(0, 3))
    def create_ephemeral(self, data, key, size):
        session, name, token = self.somebody(data)
        op = CreateFile(key, bytes(size), ephemeral=True)
        result = self.asking.ask(session, op, name, token=token)
        there = {name for name in self.keys if name == key or name.startswith(f"{key}/")}
        parent = key.rpartition("/")[0]
        blocked = there or (parent and (parent in self.keys or not any(k.startswith(f"{parent}/") for k in self.keys)))
        fits = self.fits(name, keys=1, key_bytes=len(key) + size)
        if self.may(name, "write", key, token) and blocked:
            assert isinstance(result, Failure)
            assert result.code != commands.FORBIDDEN
        elif self.judged(result, allowed=self.may(name, "write", key, token), fits=fits):
            self.keys[key] = (name, size)
            self.ephemeral[key] = session

    @rule(data=st.data(), key=KEY)
    def delete(self, data, key):
        session, name, token = self.somebody(data)
        result = self.asking.ask(session, DeleteKey(key), name, token=token)
        if self.judged(result, allowed=self.may(name, "write", key, token)):
            self.keys.pop(key, None)
            self.ephemeral.pop(key, None)

    @rule(data=st.data(), prefix=st.sampled_from(PREFIXES))
    def delete_range(self, data, prefix):
        session, name, token = self.somebody(data)
        result = self.asking.ask(session, DeleteRange(prefix, prefix=True), name, token=token)
        # It takes one prefix that reaches all that may ever be there, and not the keys that happen to be.
        allowed = self.may(name, "write", prefix, token)
        if self.judged(result, allowed=allowed):
            for key in [key for key in self.keys if key.startswith(prefix)]:
                del self.keys[key]
                self.ephemeral.pop(key, None)

    @rule(data=st.data(), first=KEY, second=KEY)
    def transact(self, data, first, second):
        """The first is deleted and the second put, or neither."""
        session, name, token = self.somebody(data)
        if first == second:
            return
        result = self.asking.ask(session, Transact((), (DeleteKey(first), PutKey(second, b"1"))), name, token=token)
        if not (self.may(name, "write", first, token) and self.may(name, "write", second, token)):
            assert result.code == commands.FORBIDDEN
            return
        gone = self.keys.pop(first, None)
        owner, before = self.keys.get(second, (name, 0))
        new = second not in self.keys
        if self.fits(owner, keys=int(new), key_bytes=1 - before + (len(second) if new else 0)):
            assert isinstance(result, commands.Transacted)
            self.keys[second] = (owner, 1)
            self.ephemeral.pop(first, None)
        else:
            assert result.refusal.code == commands.FULL
            if gone is not None:
                self.keys[first] = gone

    @rule(name=NAME, nonce=st.sampled_from([b"", b"n"]))
    def open(self, name, nonce):
        known = nonce and self.asking.machine.nonces.get((name, nonce))
        result = self.asking.send(0, 0, OpenSession(5_000, nonce), name)
        if known:
            assert result.session == known
        elif self.judged(result, allowed=True, fits=self.fits(name, sessions=1)):
            self.sessions[result.session] = name

    @rule(data=st.data(), lock=KEY, wait=st.booleans())
    def acquire(self, data, lock, wait):
        session, _, token = self.somebody(data)
        self.wants(session, token, lock, wait=wait)

    def wants(self, session, token, lock, *, wait):
        name = self.sessions[session]
        op = Acquire((lock,), 1, wait=wait, refuse_deadlocks=False)
        has = self.holder.get(lock) == session or (session, lock) in self.waiting
        fits = has or lock not in self.holder or not wait or self.fits(name, waiters=1)
        result = self.asking.ask(session, op, name, token=token)
        if self.judged(result, allowed=self.may(name, "lock", lock, token), fits=fits) and not has:
            if lock not in self.holder:
                self.holder[lock] = session
            elif wait:
                self.waiting.append((session, lock))

    @rule(data=st.data(), lock=KEY)
    def release(self, data, lock):
        session, _, _ = self.somebody(data)
        self.lets_go(session, lock)

    def lets_go(self, session, lock):
        self.asking.ask(session, Release((lock,), 1), self.sessions[session])
        if self.holder.get(lock) == session:
            del self.holder[lock]
        if (session, lock) in self.waiting:
            self.waiting.remove((session, lock))
        self.hand_on()

    @rule(data=st.data())
    def expire(self, data):
        session, name, _ = self.somebody(data)
        self.asking.node(ExpireSessions((session,)))
        self.end([session])
        if name not in self.sessions.values():
            quotas = [self.quotas.pop(who, None) for who in (CLUSTER, EACH, name)]
            for who in (CLUSTER, EACH, name):
                self.command(SetQuota(who, None))
            self.sessions[self.asking.open(name)] = name
            for who, quota in zip((CLUSTER, EACH, name), quotas, strict=True):
                if quota is not None:
                    self.set_quota(who, quota)

    # --- histories that chance would seldom make --------------------------------------------------

    @rule(data=st.data(), name=NAME, role=st.sampled_from(ROLES), rights=SOME_RIGHTS, goes=st.booleans())
    def a_role_comes_changes_and_goes(self, data, name, role, rights, goes):
        self.set_principal(name, (), ())
        self.set_role(role, (Permission("", RIGHTS),))
        self.set_roles(name, (role,))
        self.read(data, "a")
        if goes:
            self.remove_role(role)
        else:
            self.set_role(role, (Permission("", rights),))
        self.put(data, "a", 1)
        self.read(data, "a")

    @rule(data=st.data(), key=KEY, size=st.integers(1, 3), who=st.sampled_from([CLUSTER, EACH, *NAMES]))
    def somebody_writes_to_what_is_full(self, data, key, size, who):
        for name in NAMES:
            self.set_principal(name, ("read", "write", "lock"), ())
        self.put(data, key, 0)
        self.set_quota(who, Quota(key_bytes=len(key)))
        self.put(data, key, size)
        self.set_quota(who, None)
        self.put(data, key, size)
        self.set_quota(who, Quota(key_bytes=0))
        self.put(data, key, size - 1)

    @rule(name=NAME)
    def an_opening_comes_twice(self, name):
        self.open(name, b"n")
        self.set_quota(name, Quota(sessions=0))
        self.open(name, b"n")

    @rule(name=NAME, role=st.sampled_from(ROLES))
    def a_role_is_added_to_what_its_principal_has(self, name, role):
        self.remove_principal(name)
        self.set_principal(name, (), ())
        self.permits("principal", name, "a", ("read",))
        self.set_role(role, (Permission("b", ("read",)),))
        self.set_roles(name, (role,))
        for _ in range(2):
            for key in KEYS:
                self.reads(name, "", key)
            self.restore()

    @rule(name=NAME, prefixes=st.sets(st.sampled_from(["a/", "ab", "b"]), min_size=2).map(tuple))
    def prefixes_beside_one_another_all_reach(self, name, prefixes):
        self.remove_principal(name)
        self.set_principal(name, ("read",), prefixes)
        for key in KEYS:
            self.reads(name, "", key)

    @rule(token=st.sampled_from([*TOKENS]), prefixes=st.permutations(["a", "a/"]))
    def a_token_reaches_what_its_principal_reaches_too(self, token, prefixes):
        name = TOKENS[token]
        self.remove_principal(name)
        self.add_token(token)
        self.set_principal(name, ("read",), (prefixes[0],))
        self.narrow_token(token, (Permission(prefixes[1], ("read",)),))
        for key in KEYS:
            self.reads(name, token, key)

    @rule(token=st.sampled_from([*TOKENS]), key=KEY)
    def a_token_is_narrowed_and_widened_and_comes_again(self, token, key):
        self.set_principal(TOKENS[token], ("read", "write", "lock"), ())
        self.add_token(token)
        for permissions in ((), None, ()):
            self.narrow_token(token, permissions)
            self.reads(TOKENS[token], token, key)
        self.remove_token(token)
        self.add_token(token)
        self.reads(TOKENS[token], token, key)

    @rule(lock=KEY, lets_in=st.booleans())
    def one_waits_for_another(self, lock, lets_in):
        for who in (CLUSTER, EACH, *NAMES):
            self.set_quota(who, None)
        for name in NAMES:
            self.set_principal(name, ("read", "write", "lock"), ())
        first, second = (self.session_of(name) for name in NAMES)
        self.wants(first, "", lock, wait=True)
        self.wants(second, "", lock, wait=True)
        self.restore()
        self.what_is_used_is_what_is_there()
        self.lets_go(first if lets_in else second, lock)

    def session_of(self, name):
        return next(session for session, owner in self.sessions.items() if owner == name)

    @rule()
    def restore(self):
        self.asking.machine = restored(self.asking.machine)

    # --- what must hold ---------------------------------------------------------------------------

    @rule(data=st.data(), key=KEY)
    def read(self, data, key):
        _, name, token = self.somebody(data)
        self.reads(name, token, key)

    def reads(self, name, token, key):
        for query in (GetKey(key), ReadRange(key, prefix=True)):
            result = self.asking.query(query, name, token=token)
            self.judged(result, allowed=self.may(name, "read", key, token))

    @invariant()
    def what_is_used_is_what_is_there(self):
        for who in (CLUSTER, *NAMES, "web"):
            assert self.asking.query(GetQuota(who), "web").used == self.used(who)

    @invariant()
    def who_waits_is_who_the_model_says(self):
        for name in KEYS:
            held = self.asking.holder(name)
            assert (None if held is None else held[0]) == self.holder.get(name)
        for session, lock in self.waiting:
            if self.sessions[session] in self.said:
                query = AwaitGrant(lock, 1, session)
                assert isinstance(self.asking.query(query, self.sessions[session]), commands.Queued)


TestAccessAgainstAModel = pytest.mark.long(AccessAgainstAModel.TestCase)
TestAccessAgainstAModel.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=[*HealthCheck]
)
