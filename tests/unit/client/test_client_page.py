"""The examples of docs/client.md, run as they stand there, one after the other, over the state machine itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Retry

import coordinator.client
from coordinator.client import Snapshot
from coordinator.client import __main__ as command_line
from coordinator.client.locks import Hold
from coordinator.client.options import DEFAULT_TTL_S
from tests.unit.client.cluster import Cluster, TestClient

PAGE = Path(__file__).parents[3] / "docs" / "client.md"


class DocumentedClient(TestClient):
    """With what each shell wraps for itself: a Hold does all that a Lease does."""

    def lock(self, name: str, **options: Any) -> Any:
        return self.locks.hold(name, **options)

    def acquire(self, name: str, **options: Any) -> Hold[Any]:
        return self.locks.acquire(name, **options)


def test_the_examples_do_what_they_say(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    cluster.made = 7
    cluster.tells_to_drop = True

    def client(*, cache: bool = False) -> DocumentedClient:
        made = DocumentedClient(cluster, "root")
        made.caches = cache
        return made

    monkeypatch.setattr(coordinator.client, "Client", client)
    names: dict[str, Any] = {"Snapshot": Snapshot, "folder": tmp_path}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    cluster.made += 1
    _a_task_is_done_once(names, DocumentedClient(cluster, "root"))


def _a_task_is_done_once(names: dict[str, Any], other: DocumentedClient) -> None:
    """What the page's Celery task does with copies of one message, and says while another works on it."""
    paid: list[tuple[int, int]] = []
    names["pay"] = lambda order, fence: paid.append((order, fence))
    with other.lock("charge/7", ttl=15) as lease, pytest.raises(Retry):
        names["charge"](7)
    assert not paid
    for _ in range(2):
        names["charge"](7)
    ((order, fence),) = paid
    assert order == 7
    assert fence > lease.token


def _from_a_shell() -> list[str]:
    """The lines of that block whose first column is one command, or some with ';' between."""
    block = (
        PAGE.read_text(encoding="utf-8").partition("## From a shell")[2].partition("\n\n")[2].partition("\n\nWhat")[0]
    )
    columns = [re.split(r" {3,}", line.strip())[0] for line in block.splitlines() if line.startswith("    ")]
    return [command.strip() for column in columns if "|" not in column for command in column.split(";")]


@pytest.mark.parametrize("line", _from_a_shell())
def test_a_shell_takes_it_as_it_stands_there(line: str) -> None:
    command_line._parser().parse_args(shlex.split(line.replace("REVISION", "1")))


@pytest.mark.parametrize("words", ["lock", "elect", "group join", "queue take", "double-barrier"])
def test_help_says_how_long_a_lease_is_where_nothing_is_said(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line._parser().parse_args([*words.split(), "--help"])
    assert f"default: {DEFAULT_TTL_S:g}" in " ".join(capsys.readouterr().out.split())


def test_every_error_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    errors = [
        name
        for name in coordinator.client.__all__
        if isinstance(kind := getattr(coordinator.client, name), type) and issubclass(kind, Exception)
    ]
    assert len(errors) > 15
    missing = {name for name in errors if f"`{name}`" not in page}
    assert missing <= {"ConclaveError", "RequestCancelled"}
