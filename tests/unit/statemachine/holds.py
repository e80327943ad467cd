"""A model of who has which lock, from the page on semantics alone: one list of all waiters in order of arrival, gone
over until nothing moves, and lists of holds. No counting locks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Wish:
    session: int
    acquisition: int
    names: tuple[str, ...]
    mode: str = "exclusive"
    reentrant: bool = False
    delay_ms: int = 0

    @property
    def key(self):
        return self.session, self.acquisition


@dataclass
class Hold:
    """`wish` is what was asked for, `mode` how it holds the name."""

    wish: Wish
    mode: str
    token: int


@dataclass
class Delay:
    delay_ms: int
    since: int
    holder: tuple[int, int]
    """The last that died, and by which token it held."""
    token: int


@dataclass
class Holds:
    names: tuple[str, ...]
    held: dict[str, list[Hold]] = field(default_factory=dict)
    waiters: list[Wish] = field(default_factory=list)
    upgrading: dict[str, tuple[int, int]] = field(default_factory=dict)
    delays: dict[str, Delay] = field(default_factory=dict)

    def __post_init__(self):
        self.held = {name: [] for name in self.names}

    # --- what there is ----------------------------------------------------------------------------

    def waiter(self, key, name):
        return next((wish for wish in self.waiters if wish.key == key and name in wish.names), None)

    def hold(self, key, name):
        return next((hold for hold in self.held[name] if hold.wish.key == key), None)

    def line(self, name):
        return [wish for wish in self.waiters if name in wish.names]

    def of_session(self, session, name):
        return [hold for hold in self.held[name] if hold.wish.session == session]

    def modes(self, name):
        return {hold.mode for hold in self.held[name]}

    # --- who may have it --------------------------------------------------------------------------

    def joins(self, name, wish):
        """Its session holds the name in a mode that lets it in: its place in that line does not count."""
        own = wish.reentrant and self.of_session(wish.session, name)
        return own and self.modes(name) <= {"exclusive", wish.mode}

    def admits(self, name, wish):
        if name in self.upgrading or name in self.delays:
            return False
        return not self.held[name] or (wish.mode == "shared" and self.modes(name) == {"shared"})

    def free(self, wish):
        """Nobody before it wants any of its names, and each lets it in."""
        before = self.waiters[: self.waiters.index(wish)] if wish in self.waiters else self.waiters
        wanted = {name for other in before for name in other.names if not self.joins(name, other)}
        return all(self.joins(name, wish) or (name not in wanted and self.admits(name, wish)) for name in wish.names)

    def take(self, wish, token):
        """The token that it is told: the highest of its names."""
        for name in wish.names:
            holders = self.held[name]
            if holders and holders[0].mode == "exclusive":
                holders.append(Hold(wish, "exclusive", holders[0].token))
            else:
                holders.append(Hold(wish, wish.mode, token))
        return max(hold.token for name in wish.names for hold in self.held[name] if hold.wish.key == wish.key)

    def settle(self, token):
        moved = True
        while moved:
            moved = False
            for name, key in [*self.upgrading.items()]:
                if len(self.held[name]) == 1 and name not in self.delays:
                    hold = self.hold(key, name)
                    hold.mode, hold.token = "exclusive", token
                    del self.upgrading[name]
                    moved = True
            for wish in self.waiters:
                if self.free(wish):
                    self.waiters.remove(wish)
                    self.take(wish, token)
                    moved = True
                    break

    # --- who has it no more -----------------------------------------------------------------------

    def lose(self, name, goes):
        """Holds of the name that go; no waiter is let in yet."""
        gone = [hold for hold in self.held[name] if goes(hold)]
        self.held[name] = [hold for hold in self.held[name] if not goes(hold)]
        if any(hold.wish.key == self.upgrading.get(name) for hold in gone):
            del self.upgrading[name]
        return gone

    def end(self, sessions, index, token, *, died):
        for name in self.names:
            gone = self.lose(name, lambda hold: hold.wish.session in sessions)
            asked = [hold for hold in gone if hold.wish.delay_ms]
            if died and asked:
                most = max(hold.wish.delay_ms for hold in asked)
                if name in self.delays:
                    most = max(most, self.delays[name].delay_ms)
                last = asked[-1]
                self.delays[name] = Delay(most, index, last.wish.key, last.token)
        self.waiters = [wish for wish in self.waiters if wish.session not in sessions]
        self.settle(token)

    # --- who waits for whom -----------------------------------------------------------------------

    def waits_for(self, session):
        """Sessions that hold a name that this one stands in line for, or that are before it there, but for those that
        it could hold the name together with."""
        found = []
        for wish in self.waiters:
            if wish.session != session:
                continue
            for name in wish.names:
                if self.joins(name, wish):
                    continue
                before = self.waiters[: self.waiters.index(wish)]
                ahead = [
                    (hold.wish.session, "exclusive" if self.upgrading.get(name) == hold.wish.key else hold.mode)
                    for hold in self.held[name]
                ]
                ahead += [(o.session, o.mode) for o in before if name in o.names and not self.joins(name, o)]
                found += [one for one, mode in ahead if (mode, wish.mode) != ("shared", "shared")]
        for name, key in self.upgrading.items():
            if key[0] == session:
                found += [hold.wish.session for hold in self.held[name]]
        return {one for one in found if one != session}

    def reaches(self, session):
        seen, todo = set(), [session]
        while todo:
            for other in self.waits_for(todo.pop()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen
