"""`docs/wire.md` says of each packet, request and answer how it is encoded and what it is answered by, and how much a
node takes. Its example is a packet as the code makes it. (That a client can be written from it: `test_stranger.py`.)"""

from __future__ import annotations

import re
import typing
from typing import Any

import pytest

from coordinator import wire
from coordinator.client import cache, calls, grants, outstanding, packets, routing, session, session_keeper
from coordinator.consensus.members import Member
from coordinator.embedded_redis import SELECTORS_SINCE, client_acl_rules
from coordinator.replica import caching, callers, ingress, leases, mailbox, reads, replica, turn, watches
from tests.unit.pages import DOCS, ROOT, WORD, section
from tests.unit.pages import rows as rows_of
from tests.unit.spelling import row, rows

PAGE = DOCS / "wire.md"
TEXT = PAGE.read_text()
REQUESTS = typing.get_args(wire.Request)
REPLIES = typing.get_args(wire.Reply)
PARTS = [
    wire.Envelope,
    wire.RequestBatch,
    wire.Refusal,
    wire.ClusterEntry,
    wire.ReplicaReport,
    Member,
    wire.MemberProgress,
]


def tables(title: str) -> list[list[list[str]]]:
    """Of a section: the rows of each table, without its heading."""
    return [rows_of(part)[1:] for part in section(PAGE, title).split("\n\n") if part.startswith("| ")]


def names(kinds: Any) -> list[str]:
    return [kind.__name__ for kind in kinds]


def test_the_page_says_how_each_is_encoded_and_nothing_else_is_there() -> None:
    said = [line for line in TEXT.splitlines() if re.match(r"\| \d* ?\| `", line)]
    wanted = [*rows(wire.Request), *rows(wire.Reply), *map(row, PARTS)]
    assert sorted(said) == sorted(wanted)


def test_each_request_says_who_is_asked_and_what_answers_it() -> None:
    table = tables("Requests")[-1]
    assert sorted(word for cells in table for word in WORD.findall(cells[0])) == sorted(names(REQUESTS))
    answers = {word for cells in table for word in WORD.findall(cells[2])} - {"Failure"}
    assert answers == {*names(REPLIES)} - {"GrantPushed", "HoldBroken", "Invalidation"}


def test_each_request_of_an_operator_says_what_it_asks() -> None:
    (table,) = tables("Status and operators")
    asked = {*names(typing.get_args(wire.OperatorRequest)), "CrashRequest"}
    assert {WORD.findall(cells[0])[0] for cells in table} == asked


def test_the_envelope_is_as_the_page_says() -> None:
    assert f"`version` is {wire.VERSION}." in TEXT
    kinds = [int(cells[0]) for cells in tables("Packets")[-1]]
    assert kinds == [wire.REQUEST, wire.REPLY, wire.REFUSAL]
    assert all(f"`{code}`:" in TEXT for code in (wire.REFUSED_WAITING, wire.REFUSED_TOKEN))


def test_the_example_is_a_packet() -> None:
    key, body, packet = (bytes.fromhex(block) for block in re.findall(r"\n\n((?:    [0-9a-f]+\n)+)", TEXT))
    (start,) = re.findall(r"`(conclave_\w+_)` and then 32 times `0f`", TEXT)
    token = wire.Token.parse(start + 32 * "0f")
    assert token.key == key
    (channel,) = re.findall(r"whose reply channel is `([^`]+)`", TEXT)
    assert wire.encode_requests(channel, [wire.DirectoryRequest(7)]) == body
    assert wire.seal(token.key, wire.REQUEST, token.token_id, "*", body) == packet


def test_the_channels_are_those_of_the_code() -> None:
    channels = wire.Channels("REALM")
    said = [WORD.findall(cells[0])[0] for cells in tables("What a client is given")[0]]
    assert said == [channels.discovery, channels.client("NODE"), channels.reply_prefix + "RANDOM"]


def test_the_page_names_what_a_client_may_say_to_redis() -> None:
    rules = " ".join(client_acl_rules("0123abcd", "secret", SELECTORS_SINCE))
    for allowed in re.findall(r"\+([a-z|]+)", rules):
        assert f"`{allowed.replace('|', ' ').upper()}`" in section(PAGE, "What a client is given"), allowed


SIZES = {
    "PACKET_BYTES_MAX": wire.PACKET_BYTES_MAX,
    "COMMAND_BYTES_MAX": replica.COMMAND_BYTES_MAX,
    "REPLY_CHARS_MAX": 128,
    "PACKET_BYTES_TARGET": wire.PACKET_BYTES_TARGET,
    "INBOX_BYTES_MAX": mailbox.INBOX_BYTES_MAX[False],
    "ANSWERS_BYTES_MAX": turn.ANSWERS_BYTES_MAX,
    "READS_MAX": reads.READS_MAX,
    "CHANNEL_READS_MAX": reads.CHANNEL_READS_MAX,
    "REQUEST_BYTES_MAX": reads.REQUEST_BYTES_MAX,
    "PROMPT_MAX": reads.PROMPT_MAX,
    "READ_MS_MAX": reads.READ_US_MAX // 1_000,
    "WAIT_MS_MAX": watches.WAIT_MS_MAX,
    "LEASE_MS": caching.LEASE_MS,
    "TOLD_PATHS_MAX": caching.TOLD_PATHS_MAX,
    "RETRY_MS": callers.RETRY_MS,
}


def test_the_page_says_how_much_a_node_takes() -> None:
    table = tables("Sizes and times")[0]
    assert {WORD.findall(cells[0])[0]: cells[1] for cells in table} == {key: f"{n:,}" for key, n in SIZES.items()}


def test_a_reply_channel_has_as_many_characters_as_the_page_says() -> None:
    door = ingress.Ingress("node1", wire.Channels("0123abcd"), b"", {})  # type: ignore[arg-type]
    longest = wire.Channels("0123abcd").reply_prefix.ljust(SIZES["REPLY_CHARS_MAX"], "x")
    door._check_channel(longest)
    with pytest.raises(wire.WireError, match="reply-channel"):
        door._check_channel(longest + "x")


def ms(us: int) -> int:
    assert us % 1_000 == 0
    return us // 1_000


@pytest.mark.parametrize(
    "words",
    [
        f"after {ms(calls.RESEND_US_MIN)} ms, then twice as long each time, to {calls.RESEND_US_MAX // 1_000_000} s",
        f"no sooner than {ms(calls.REDIRECT_US_MIN)} ms",
        f"does not believe in that node for {ms(routing.DOUBT_US)} ms",
        f"again after {ms(routing.PROBE_US_MIN)} ms, then a quarter later each time, to {ms(routing.PROBE_US_MAX)} ms",
        f"another each {ms(session_keeper.KEEP_ALIVE_RESEND_US)} ms",
        f"less a hundredth and {ms(session.DRIFT_US)} ms for drift",
        f"tells apart the {leases.CHANNELS_MAX} channels",
        f"comes every {ms(caching.TELL_AGAIN_US)} ms",
        f"or {caching.LEASE_MS // 1_000} s are over",
        f"{packets.BATCH_MAX} requests of a packet (`BATCH_MAX`), and {outstanding.WINDOW_CALLS:,} requests",
        f"{turn.REFUSALS_MAX} of them a turn",
    ],
)
def test_the_page_says_when(words: str) -> None:
    assert words in TEXT


def test_what_the_page_says_in_words_is_so() -> None:
    assert (session.DRIFT_SHARE, session.RENEWALS, cache.RENEWALS, cache.RENEW_AGAIN_SHARE) == (100, 3, 3, 10)
    assert grants.ASK_US == 1_000_000
    assert "`AwaitGrant` in a `QueryRequest` each second" in TEXT


@pytest.mark.parametrize("page", ["docs/wire.md", "docs/semantics.md", "docs/architecture.md", "README.md"])
def test_links_between_the_pages_of_the_wire_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(((?:docs/)?[\w-]*\.?m?d?)#([\w-]+)\)", text)
    for target, anchor in links:
        file = (ROOT / page).parent / target if target else ROOT / page
        heads = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, (target, anchor)
    assert page == "docs/wire.md" or "wire.md" in text
