"""How integration tests call the HTTP API of an installation: by bearer token or as a person who signed in."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Final, Self

import httpx

from tests.integration.installation import ADMIN_PASSWORD, ADMINISTRATOR, Installation

API: Final = "/api/v1/clusters/default"
ANSWER_S_MAX: Final = 20.0


class Caller:
    """Calls the API. `token` None: nobody, until `sign_in`."""

    def __init__(self, installation: Installation, token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=installation.url, headers=headers, timeout=ANSWER_S_MAX)
        self._csrf_cookie = f"conclave_csrf_{installation.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def sign_in(self, name: str = ADMINISTRATOR, password: str = ADMIN_PASSWORD) -> Self:
        """As a person does it, through the page."""
        page = self.http.get("/accounts/login/")
        assert page.status_code == 200, page.text
        form = {"username": name, "password": password, "csrfmiddlewaretoken": self.http.cookies[self._csrf_cookie]}
        answer = self.http.post("/accounts/login/", data=form)
        assert answer.status_code == 302, answer.text
        self.http.headers["X-CSRFToken"] = self.http.cookies[self._csrf_cookie]
        return self

    def acquire(self, name: str, **body: Any) -> httpx.Response:
        return self.http.post(f"{API}/locks/{name}/acquire", json=body)

    def release(self, name: str, session: str) -> httpx.Response:
        return self.http.post(f"{API}/locks/{name}/release", json={"session": session})

    def lock(self, name: str) -> dict[str, Any]:
        answer = self.http.get(f"{API}/locks/{name}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def keep_alive(self, session: str) -> httpx.Response:
        return self.http.post(f"{API}/sessions/{session}/keepalive")

    def status(self) -> dict[str, Any]:
        answer = self.http.get(f"{API}/status")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


class HangingCall:
    """A call whose answer is not awaited: the raw connection, which the test closes when it likes. `who`: a token, or
    somebody who signed in."""

    def __init__(self, installation: Installation, who: str | Caller, path: str, body: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", installation.port), timeout=ANSWER_S_MAX)
        if isinstance(who, Caller):
            cookies = "; ".join(f"{name}={value}" for name, value in who.http.cookies.items())
            credentials = f"Cookie: {cookies}\r\nX-CSRFToken: {who.http.headers['X-CSRFToken']}"
        else:
            credentials = f"Authorization: Bearer {who}"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{installation.port}\r\n{credentials}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.socket.sendall(head.encode() + body)

    def hang_up(self) -> None:
        self.socket.close()
