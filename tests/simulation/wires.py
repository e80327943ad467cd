"""A client's connection to Redis in a simulation: what `coordinator/channel.py` is on a real socket.

The client's own `Links` work on it as they do on the real one: they connect, send, are told how many listened, are told
late that a connection is lost, and make it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from coordinator.channel import ChannelError, Message, Received
from tests.simulation.network import HOP_US_MIN, Network
from tests.simulation.scheduler import Scheduler


class SimulatedChannel:
    """See `coordinator.channel.Channel`. `wake` says that something came."""

    wants_write = False

    def __init__(self, place: str, network: Network, scheduler: Scheduler, wake: Callable[[], None]) -> None:
        self.place = place
        self._network = network
        self._scheduler = scheduler
        self._wake = wake
        self._channels: list[str] = []
        self._messages: list[Message] = []
        self._replies: list[tuple[Any, Any]] = []
        self._lost = False
        self._connection = 0
        self.connected = False

    def connect(self, channels: Iterable[str]) -> None:
        self.close()
        if not self._network.up:
            raise ChannelError("connection refused")
        self._channels = [*channels]
        for channel in self._channels:
            self._network.name_place(channel, self.place)
            self._network.subscribe(channel, self)
        self._lost = False
        self._connection += 1
        self.connected = True

    def close(self) -> None:
        for channel in self._channels:
            self._network.unsubscribe(channel, self)
        self._channels = []
        self._messages = []
        self._replies = []
        self.connected = False

    def lose(self) -> None:
        """The connection breaks; its owner finds out when it looks."""
        if self.connected:
            for channel in self._channels:
                self._network.unsubscribe(channel, self)
            self._lost = True
            self._wake()

    def send(self, commands: Iterable[tuple[Any, tuple[Any, ...]]]) -> None:
        if self._lost or not self.connected:
            self.close()
            raise ChannelError("closed by Redis")
        for tag, command in commands:
            if command[0] == "PUBLISH":
                nobody_listens = partial(self._answered, self._connection, tag, 0)
                self._network.publish(self.place, command[1], command[2], 0, nobody_listens)
            else:
                self._scheduler.after(2 * HOP_US_MIN, self._answered, self._connection, tag, "PONG")

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        if self._lost or not self.connected:
            self.close()
            raise ChannelError("closed by Redis")
        for channel, data in messages:
            self._network.publish(self.place, channel, data)

    def _answered(self, connection: int, tag: Any, reply: Any) -> None:
        """Redis answers a command: a PING, or a PUBLISH that reached nobody. (One that reached somebody is answered
        too, but a client does nothing with that.)"""
        if connection == self._connection and self.connected and not self._lost:
            self._replies.append((tag, reply))
            self._wake()

    def take(self, channel: str, data: bytes) -> None:
        self._messages.append(Message(channel.encode(), data))
        self._wake()

    @property
    def waiting(self) -> bool:
        return bool(self._messages or self._replies or self._lost)

    def receive(self) -> Received:
        if self._lost or not self.connected:
            self.close()
            raise ChannelError("closed by Redis")
        received = Received(self._messages, self._replies)
        self._messages, self._replies = [], []
        return received

    def flush(self) -> None:
        """Everything was sent at once."""

    def fileno(self) -> int:
        raise ChannelError("a simulated connection has no descriptor")
