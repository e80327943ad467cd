"""A client's process: the real `Core`, `flows` and `Links` of `coordinator/client`, driven by the scheduler.

What the two shells (`aio.py`, `sync.py`) do with an event loop or threads is done here with events: run a flow, and
go on with it when its call is answered; send what is due; take in what came. What the workers ask is in
`workload.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from coordinator.client.calls import Call, resolved
from coordinator.client.core import Core
from coordinator.client.errors import ConclaveError, OutcomeUnknown
from coordinator.client.flows import Grant
from coordinator.client.lease import LeaseState
from coordinator.client.links import HOME, Links
from coordinator.client.packets import Packet
from coordinator.statemachine.lock_commands import EXCLUSIVE, Mode
from coordinator.wire import CommandRequest, Overloaded, decode_command
from tests.simulation.clocks import Clock
from tests.simulation.watch import Violation, defect_of
from tests.simulation.wires import SimulatedChannel

if TYPE_CHECKING:
    from tests.simulation.world import World

STEP_US_MIN: Final = 1_000
"""A client looks at its timers at most this often, as its shells do."""


class Sleep(NamedTuple):
    """What a worker yields to let time pass, by its machine's clock."""

    us: int


Script = Generator[Call | Sleep, Any, None]


class HeldLease:
    """A lock that a client holds, or held: what an application has in its hand."""

    def __init__(self, client: Client, grant: Grant, mode: Mode, limit: int) -> None:
        self.client = client
        self.mode = mode
        self.limit = limit
        """How many may hold it so, where it is counted."""
        self.acquisition = grant.acquisition
        self.state = LeaseState(grant, client.clock.now_us)
        self.name = grant.name
        self.token = grant.token
        self.session = grant.session
        self.taken_us = client.world.scheduler.now_us

    @property
    def held(self) -> bool:
        """Would `check()` pass at this moment?"""
        return self.client.is_up and self.state.held

    def __repr__(self) -> str:
        return f"{self.mode} {self.name!r} of {self.client.name} (session {self.session.session}, token {self.token})"


class _SeenCore(Core):
    """`Busy` speaks for the only copy of a request: that is a Redis' promise, and not this network's. Where the network
    has doubled the packet, the outcome is as unknown as ever; else it is to be true that nothing is applied."""

    def __init__(self, world: World, random: Random) -> None:
        super().__init__(world.token, world.settings.cluster_name, random)
        self._world = world
        self._packets: dict[int, bytes] = {}
        """By call: what it was last sent in."""

    def take_packets(self, now_us: int) -> list[Packet]:
        packets = super().take_packets(now_us)
        if packets:
            self._packets = {number: data for number, data in self._packets.items() if number in self._calls}
        for packet in packets:
            self._packets.update(dict.fromkeys(packet.ids, packet.data))
        return packets

    def _refusal(self, call: Call, reply: Overloaded) -> ConclaveError:
        if call.number and not self._world.network.comes_once(self._packets[call.request_id]):
            self._world.faults["busy-and-doubled"] += 1
            return OutcomeUnknown("there was no room for one copy, and the network made another")
        self._world.faults["busy"] += 1
        request = call.build(call.request_id)
        if isinstance(request, CommandRequest):
            self._world.watch.tell("refused", decode_command(request.command))
        return super()._refusal(call, reply)


class Client:
    def __init__(self, world: World, name: str, random: Random) -> None:
        self.world = world
        self.name = name
        self.clock = Clock(world.scheduler, random, world.settings.drift_ppm_max)
        self.random = random
        self.core: Core
        self.links: Links
        self.channel: SimulatedChannel
        self.is_up = False
        self.paused = False
        self.leases: list[HeldLease] = []
        self.lives = 0
        self._scripts: list[Script] = []
        self._ready: deque[tuple[Script, Call | None]] = deque()
        self._due_us: int | None = None
        self._to_wake: set[tuple[int, int]] = set()
        """Times of wake-ups that are to come, with the life that they are for: of two at one time the second would come
        to nothing."""
        self._valid_until: dict[int, int] = {}

    @property
    def has_session(self) -> bool:
        """Can it prove that a session of its own is alive?"""
        now_us = self.clock.now_us()
        return any(session.valid(now_us) for session in self.core.sessions.values())

    # --- the process ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a process: a new client, which knows nothing of the one before."""
        if self.is_up:
            return
        world = self.world
        self.lives += 1
        self.is_up = True
        self.leases = []
        self._valid_until = {}
        self.core = _SeenCore(world, self.random)
        # A channel's name is drawn from the system's randomness, which a simulation must not depend on.
        self.core.reply_channel = f"{self.core.channels.reply_prefix}{self.random.getrandbits(128):032x}"
        world.network.name_place(self.core.reply_channel, self.name)
        self.links = Links(self.core, "redis://simulated", self.random)
        self.channel = SimulatedChannel(self.name, world.network, world.scheduler, self._something_came)
        self.links.links[HOME].channel = self.channel
        for script in world.workload.scripts(self):
            self.add_script(script)

    def die(self) -> None:
        """The process ends at once; what it held stays held until its sessions expire."""
        if not self.is_up:
            return
        self.is_up = False
        self.paused = False
        self.clock.thaw()
        self.lives += 1
        self._due_us = None
        self._end_scripts()
        for lease in self.leases:
            lease.state.released = True
        self.leases = []
        self.channel.close()
        self.world.workload.gone(self)

    def _end_scripts(self) -> None:
        """Close what runs here now, and not when the collector finds it. What it does on leaving reaches nobody."""
        scripts, self._scripts = self._scripts, []
        for script in scripts:
            script.close()
        self._ready.clear()

    def pause(self) -> None:
        self.paused = True
        self._due_us = None

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._wake_at(self.world.scheduler.now_us)

    # --- its loop ---------------------------------------------------------------------------------

    def _something_came(self) -> None:
        if self.is_up and not self.paused:
            self._turn()

    def _wake_at(self, time_us: int) -> None:
        if self._due_us is None or time_us < self._due_us:
            self._due_us = time_us
            if (time_us, self.lives) not in self._to_wake:
                self._to_wake.add((time_us, self.lives))
                self.world.scheduler.at(time_us, self._wake, time_us, self.lives)

    def _wake(self, due_us: int, life: int) -> None:
        self._to_wake.remove((due_us, life))
        if due_us != self._due_us or life != self.lives or self.paused or not self.is_up:
            self.world.scheduler.nothing_happened()
            return
        self._due_us = None
        self._turn()

    def _turn(self) -> None:
        try:
            self._do_turn()
        except Violation:
            raise
        except Exception as defect:
            raise defect_of(self.name, defect) from defect

    def _do_turn(self) -> None:
        """What a shell does in one iteration of its loop."""
        now_us = self.clock.now_us()
        links = self.links
        for link in links.to_connect(now_us):
            links.connected(link, links.connect(link), now_us)
        if self.channel.waiting and self.channel.connected:
            links.receive(links.links[HOME], now_us)
            self._note_renewals()
        self._run_scripts()
        links.send(now_us)
        if self._ready:
            self._run_scripts()
            links.send(now_us)
        due_us = self.clock.true_us(links.due_us(now_us))
        self._due_us = None
        self._wake_at(max(due_us, self.world.scheduler.now_us + STEP_US_MIN))

    def _note_renewals(self) -> None:
        """Tell when a lease reaches further than before: what had run out may be held again."""
        news = False
        for ttl_ms, session in self.core.sessions.items():
            if self._valid_until.get(ttl_ms) != session.valid_until_us:
                self._valid_until[ttl_ms] = session.valid_until_us
                news = True
        if news:
            self.world.watch.tell("lease_renewed", self)
            self.world.injector.moment("kept-alive", self)

    # --- its workers ------------------------------------------------------------------------------

    def add_script(self, script: Script) -> None:
        self._scripts.append(script)
        self._ready.append((script, None))
        self._wake_at(self.world.scheduler.now_us)

    def either(self, call: Call, until_us: int) -> Call:
        """A call that is done when `call` is, or at `until_us` of true time; its outcome says nothing."""
        first = resolved(None)
        if call.done or until_us <= self.world.scheduler.now_us:
            return first
        first.done = False
        call.when_done(lambda _: first.resolve(None))
        self.world.scheduler.at(until_us, self._time_is_up, first, self.lives)
        return first

    def _time_is_up(self, call: Call, life: int) -> None:
        if life == self.lives and self.is_up and not call.done:
            call.resolve(None)
            self._something_came()
        else:
            self.world.scheduler.nothing_happened()

    def _run_scripts(self) -> None:
        while self._ready:
            script, call = self._ready.popleft()
            self._go_on(script, call)

    def _go_on(self, script: Script, call: Call | None) -> None:
        try:
            if call is None:
                waits_for = next(script)
            elif isinstance(call.outcome, BaseException):
                waits_for = script.throw(call.outcome)
            else:
                waits_for = script.send(call.outcome)
        except StopIteration:
            return
        if isinstance(waits_for, Sleep):
            time_us = self.clock.true_us(self.clock.now_us() + waits_for.us)
            self.world.scheduler.at(time_us, self._slept, script, self.lives)
        else:
            waits_for.when_done(partial(self._answered, script, self.lives))

    def _answered(self, script: Script, life: int, call: Call) -> None:
        if life == self.lives:
            self._ready.append((script, call))

    def _slept(self, script: Script, life: int) -> None:
        if life != self.lives or not self.is_up:
            self.world.scheduler.nothing_happened()
            return
        self._ready.append((script, None))
        self._something_came()

    # --- what it holds ----------------------------------------------------------------------------

    def took(self, grant: Grant, mode: Mode = EXCLUSIVE, limit: int = 1) -> HeldLease:
        lease = HeldLease(self, grant, mode, limit)
        self.leases.append(lease)
        self.world.watch.tell("lease_taken", lease)
        self.world.injector.moment("locked", self)
        return lease

    def changed(self, lease: HeldLease, mode: Mode, token: int) -> None:
        """From here on the application holds it in this mode, by this token."""
        lease.mode, lease.token = mode, token
        self.world.watch.tell("lease_taken", lease)

    def let_go(self, lease: HeldLease) -> None:
        """From here on the application does not touch what the lock guards."""
        lease.state.released = True
        if lease in self.leases:
            self.leases.remove(lease)
