"""Plays of Raft written out: each script says what is done, and below it stands every message, role and entry that came
of it. They read like plays, and nothing can change unnoticed.

A script is a file in `transcripts/`; a paragraph is a command and, behind `----`, what it brought about. Where the
product is meant to do something else, `REWRITE_TRANSCRIPTS=1 pytest tests/unit/consensus/test_transcripts.py` writes
them anew, and the difference is read line by line like any other change. (The form is that of etcd's raft.)

    propose REPLICA WORD...        elect REPLICA           turn REPLICA...        deliver [TIMES]
    change REPLICA IDS [learners IDS]    transfer REPLICA TARGET    read REPLICA [by-lease]   suspect REPLICA LEADER
    crash REPLICA...    start REPLICA...    join REPLICA    snapshot REPLICA KEEP    isolate REPLICA... | heal
    lose KIND... | settle | pass MICROSECONDS [quietly] | campaign REPLICA | step-down REPLICA | state
    doubt REPLICA | trust REPLICA | stall REPLICA | force REPLICA
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.entries import COMMAND_PREFIX, CONFIGURATION, NOOP_ENTRY
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import ChangeRefused, Configuration, decode_configuration
from coordinator.consensus.raft.messages import Message
from coordinator.consensus.raft.options import Options
from tests.unit.consensus.play import Letter, Play

SCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
IS_BEAT = re.compile(r"AppendEntries.*entries \[\]|AppendResponse.*success True")
REWRITE = os.environ.get("REWRITE_TRANSCRIPTS") == "1"


class Told(Play):
    """A play that tells what happens."""

    def begin(self) -> None:
        self.told: list[str] = []
        self.campaigns: dict[int, int] = {raft.replica: raft.campaign for raft in self.replicas.values()}

    def _send(self, sender: int, outgoing: list) -> None:
        for receiver, message in outgoing:
            letter = Letter(sender, receiver, message)
            lost = receiver not in self.replicas or self.lost(letter)
            self.told.append(f"{sender}->{receiver} {self.say(message)}{' (lost)' if lost else ''}")
        super()._send(sender, outgoing)

    def turn(self, replica: int, *, write: bool = True) -> None:
        raft = self.replicas[replica]
        words, reads = len(self.applied[replica]), len(self.reads[replica])
        super().turn(replica, write=write)
        for entry in self.applied[replica][words:]:
            self.told.append(f"{replica} applies {entry_text(entry)}")
        for ticket, index in zip(self.reads[replica][reads:], self.indices[replica][reads:], strict=True):
            self.told.append(f"{replica} may answer read {ticket} at {index}")
        now = (raft.role, raft.term, raft.leader, raft.vote)
        if self.seen.get(replica) != now:
            self.seen[replica] = now
            self.told.append(
                f"{replica} is {raft.role.value} in term {raft.term}, leader {raft.leader}, vote {raft.vote}"
            )

    @property
    def seen(self) -> dict[int, tuple[Role, int, int, int]]:
        return self.__dict__.setdefault("_seen", {})

    def say(self, message: Message) -> str:
        said = []
        for name, value in message._asdict().items():
            match name:
                case "campaign":
                    # Drawn at the start; what counts is which of its sender's campaigns it is.
                    owner = min(self.campaigns.values(), key=lambda first: abs(value - first))
                    value = f"#{value - owner}"
                case "boot":
                    continue
                case "entries":
                    value = "[" + ", ".join(entry_text(entry) for entry in value) + "]"
                case "configuration":
                    value = configuration_text(decode_configuration(value))
                case "data":
                    value = f"{len(value)} bytes"
                case _:
                    pass
            said.append(f"{name} {value}")
        return f"{type(message).__name__}: {', '.join(said)}"

    def state(self) -> list[str]:
        lines = []
        for replica, raft in sorted(self.replicas.items()):
            heard = "never" if raft.heard_at_us is None else f"{self.now_us - raft.heard_at_us} ago"
            lines.append(
                f"{replica}: {raft.role.value}, term {raft.term}, vote {raft.vote}, leader {raft.leader}, "
                f"heard {heard}, due in {raft.deadline_us - self.now_us}, reason {raft.campaign_reason!r}, "
                f"log {raft.first_index}-{raft.last_index} of terms {raft.log.terms}, "
                f"commit {raft.commit_index}, applied {raft.applied_index}, unwritten from {raft.log.unwritten}, "
                f"{f'settled {raft.settled}, ' if raft.configuration.has_witness else ''}"
                f"{configuration_text(raft.configuration)}"
            )
            for follower, progress in sorted(raft.progress.items()):
                at = progress.snapshot
                sent = "" if at is None else f", snapshot {at.source.last_index} acked {at.acked} sent {at.sent}"
                lines.append(
                    f"  of {follower}: {progress.state.value}, match {progress.match}, next {progress.next}, "
                    f"round {progress.acked_round}, "
                    f"in flight {len(progress.inflight)} ({progress.inflight_bytes} bytes), "
                    f"heard {'never' if progress.heard_at_us is None else f'{self.now_us - progress.heard_at_us} ago'}"
                    f"{', probing' if progress.probe_sent else ''}{sent}"
                )
        return lines

    def do(self, command: str, words: list[str]) -> list[str]:
        """One command; what it brought about."""
        self.told = []
        ids = [int(word) for word in words if word.isdecimal()]
        match command:
            case "elect":
                self.elect(*ids)
            case "settle":
                self.settle()
            case "turn":
                for replica in ids:
                    self.turn(replica)
            case "deliver":
                for _ in range(ids[0] if ids else 1):
                    self.deliver()
            case "pass":
                self.pass_time(ids[0])
                if "quietly" in words:
                    self.told = [line for line in self.told if not IS_BEAT.search(line)]
            case "propose":
                self.told.append(f"at index {self.propose(ids[0], *words[1:])}")
            case "read":
                self.told.append(f"ticket {self.replicas[ids[0]].read(lease_ok='by-lease' in words)}")
            case "change":
                at = words.index("learners") if "learners" in words else len(words)
                voters, learners = (_members(part) for part in (words[1:at], words[at + 1 :]))
                try:
                    index = self.replicas[ids[0]].change(Change(voters, learners), self.now_us)
                    self.told.append(f"at index {index}")
                except ChangeRefused as refused:
                    self.told.append(f"refused: {refused}")
            case "transfer":
                self.told.append(str(self.replicas[ids[0]].transfer(ids[1], self.now_us)))
            case "suspect":
                self.replicas[ids[0]].suspect(ids[1], self.now_us)
            case "campaign":
                self.replicas[ids[0]].campaign_now(self.now_us)
            case "step-down":
                self.replicas[ids[0]].step_down(self.now_us)
            case "doubt" | "trust":
                self.replicas[ids[0]].doubt(command == "doubt")
            case "stall":
                self.replicas[ids[0]].disk_took(self.options.disk_stall_us, self.now_us)
            case "force":
                self.elect_by_force(*ids)
            case "crash":
                for replica in ids:
                    self.crash(replica)
            case "start":
                for replica in ids:
                    self.campaigns[replica] = self.start(replica, seed=10 * replica + len(self.campaigns)).campaign
            case "join":
                self.campaigns[ids[0]] = self.join(ids[0]).campaign
            case "snapshot":
                taken = self.snapshot(*ids)
                self.told.append(f"up to {taken.last_index} of term {taken.term}, {len(taken.data)} bytes")
            case "isolate":
                self.isolate(*ids)
            case "lose":
                self.lost = lambda letter: type(letter.message).__name__ in words
            case "heal":
                self.heal()
            case "state":
                self.told = self.state()
            case _:
                raise AssertionError(f"no command {command!r}")
        return self.told


def _members(words: list[str]) -> tuple[Member, ...]:
    return tuple(Member(int(word), f"node{word}") for word in words)


def configuration_text(configuration: Configuration) -> str:
    parts = [
        f"{name} {' '.join(f'{member.replica}{chr(119) * member.witness}' for member in members)}"
        for name, members in configuration.sides().items()
    ]
    return ", ".join(parts) or "nobody"


def entry_text(entry: bytes) -> str:
    if entry[0] == CONFIGURATION:
        return f"<{configuration_text(decode_configuration(entry))}>"
    return "noop" if entry == NOOP_ENTRY else entry.removeprefix(COMMAND_PREFIX).decode()


def paragraphs(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a script with what stands below each; comments are commands that do nothing."""
    for paragraph in text.strip().split("\n\n"):
        head, _, expected = paragraph.partition("\n----")
        yield head, expected.strip("\n").split("\n") if expected.strip("\n") else []


def play_out(text: str) -> str:
    """The script with what really happens below each command."""
    play: Told | None = None
    written = []
    for head, _ in paragraphs(text):
        happened: list[str] = []
        for line in head.split("\n"):
            command, *words = line.split()
            if command == "#":
                continue
            if command == "play":
                given = dict(word.split("=") for word in words)
                size = int(given.pop("size", "3"))
                witnesses = tuple(int(replica) for replica in given.pop("witnesses", "").split(",") if replica)
                numbers: dict[str, Any] = {name: int(value) for name, value in given.items()}
                if "lease_reads" in numbers:
                    numbers["lease_reads"] = bool(numbers["lease_reads"])
                play = Told(size=size, witnesses=witnesses, options=Options(**numbers))
                play.begin()
                continue
            assert play is not None, "a script begins with `play`"
            happened += play.do(command, words)
        written.append("\n".join([head, "----", *happened]) if not head.startswith(("#", "play")) else head)
    return "\n\n".join(written) + "\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_everything_happens_as_it_is_written(script):
    text = script.read_text()
    happened = play_out(text)
    if REWRITE:
        script.write_text(happened)
    assert happened.split("\n") == text.split("\n")
