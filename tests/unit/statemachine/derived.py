"""What a machine keeps beside its tables, and must always be what the tables say."""

from __future__ import annotations

from coordinator.statemachine import snapshot
from coordinator.statemachine.machine import Machine
from coordinator.statemachine.snapshot import Loader


def loaded(data: bytes, part_bytes: int = 1 << 30) -> Machine:
    loader = Loader()
    for start in range(0, len(data), part_bytes):
        loader.feed(data[start : start + part_bytes])
    return Machine(loader.finish())


def derived(machine: Machine) -> object:
    state = machine.state
    return (
        state.children,
        state.key_bytes,
        state.waiting,
        {name: use.view() for name, use in state.uses.items()},
        {name: role.members for name, role in state.roles.rows.items()},
        state.tokens,
        state.nonces,
        state.broken,
        state.delayed,
        {n: (s.locks, s.waiting, s.reentrant, s.files, s.places) for n, s in state.sessions.rows.items()},
        {n: (s.sizes, s.result_bytes) for n, s in state.sessions.rows.items()},
        (state.kept.bytes, {name: (share.bytes, share.sessions) for name, share in state.kept.shares.items()}),
        {key: past[-1] for key, past in state.history.past.items()},
        [*state.history.gone],
        state.history.bytes,
    )


def restored(machine: Machine) -> Machine:
    """The machine that a snapshot of this one makes: the same to the last byte, and in all that is derived."""
    data = snapshot.dump(machine)
    again = loaded(data)
    assert snapshot.dump(again) == data
    assert derived(again) == derived(machine)
    return again
