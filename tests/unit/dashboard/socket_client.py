"""A WebSocket without a network, at the ASGI interface: what a browser sends and what it is sent."""

from __future__ import annotations

import json
from typing import Any, Final

from asgiref.testing import ApplicationCommunicator

PATIENCE_S: Final = 5.0


class Socket:
    """One connection to `application`. Every wait has a bound."""

    def __init__(self, application: Any, path: str, **scope: Any) -> None:
        self.scope: dict[str, Any] = {"type": "websocket", "path": path, "headers": [], "subprotocols": []} | scope
        self._talk = ApplicationCommunicator(application, self.scope)

    async def connect(self) -> None:
        await self._talk.send_input({"type": "websocket.connect"})
        answer = await self._talk.receive_output(PATIENCE_S)
        assert answer["type"] == "websocket.accept", answer

    async def send(self, text: str | None = None, data: bytes | None = None) -> None:
        await self._talk.send_input({"type": "websocket.receive", "text": text, "bytes": data})

    async def ask_for_snapshot(self) -> None:
        await self.send(json.dumps({"type": "snapshot"}))

    async def take(self) -> dict[str, Any]:
        """The next message."""
        answer = await self._talk.receive_output(PATIENCE_S)
        assert answer["type"] == "websocket.send", answer
        message: dict[str, Any] = json.loads(answer["text"])
        return message

    async def close_code(self) -> int:
        """The code that the server closes with; what it sends before is passed over."""
        while True:
            answer = await self._talk.receive_output(PATIENCE_S)
            if answer["type"] == "websocket.close":
                return int(answer["code"])

    async def disconnect(self) -> None:
        """As a browser that goes, or one that heard the server close."""
        await self._talk.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._talk.wait(PATIENCE_S)
