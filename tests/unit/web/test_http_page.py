"""The examples of docs/http.md, run as they stand there, one after the other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from tests.unit.web.fake_cluster import FakeCluster
from tests.unit.web.helpers import API, Bearer

PAGE = Path(__file__).parents[3] / "docs" / "http.md"
_REQUEST = re.compile(r"(GET|POST|PUT|DELETE) (/\S+)")


class Example(NamedTuple):
    method: str
    address: str
    body: str
    status: int
    answer: dict[str, Any]


def examples() -> list[Example]:
    """Of each block: a request line and its body, an empty line, the status and what the answer holds."""
    found = []
    page = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"^```http\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        parts = block.strip().split("\n\n")
        for request, answer in zip(parts[::2], parts[1::2], strict=True):
            line, _, body = request.partition("\n")
            match = _REQUEST.fullmatch(line)
            assert match is not None, line
            status, _, holds = answer.partition("\n")
            found.append(Example(match[1], match[2], body, int(status), json.loads(holds)))
    return found


class Words:
    """What `<word>` stands for."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def put_in(self, text: str) -> str:
        """In JSON a number stands without its quotes."""
        for word, value in self._known.items():
            plain = value if isinstance(value, str) else json.dumps(value)
            text = text.replace(f'"<{word}>"', json.dumps(value)).replace(f"<{word}>", plain)
        assert "<" not in text, text
        return text

    def agree(self, expected: Any, came: Any) -> bool:
        if isinstance(expected, str) and re.fullmatch("<[a-z]+>", expected):
            return bool(self._known.setdefault(expected[1:-1], came) == came)
        return bool(expected == came)


async def test_the_examples_do_what_they_say(worker: Bearer, cluster: FakeCluster) -> None:
    words = Words()
    told = examples()
    assert len(told) > 20
    for example in told:
        address, body = API + words.put_in(example.address), words.put_in(example.body)
        answer = await _ask(worker, example.method, address, body)
        assert answer.status_code == example.status, (example, answer.content)
        came = answer.json()
        for field, expected in example.answer.items():
            assert words.agree(expected, came[field]), (example, field, came)


async def _ask(worker: Bearer, method: str, address: str, body: str) -> Any:
    is_json = body.startswith("{")
    match method:
        case "GET":
            return await worker.get(address)
        case "DELETE":
            return await worker.delete(address)
        case "PUT" if is_json:
            return await worker.put_json(address, json.loads(body))
        case "PUT":
            return await worker.put(address, body.encode())
    if is_json or not body:
        return await worker.post(address, json.loads(body) if body else None)
    return await worker.post_bytes(address, body.encode())
