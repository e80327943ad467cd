"""What is compiled: the same program as the interpreted one, and what nodes and clients run where it was built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from coordinator import compiled, native_layout
from tests.conftest import without

pytestmark = pytest.mark.usefixtures("build")

TESTED: Final = {"client": 20, "consensus": 20, "replica": 6, "statemachine": 4}
"""Rooms of unit tests that pass in both programs, and how many of them pass for each that is left out, at the least."""
TRACED: Final = (3, 11, 1000, 20_261_127)
"""Seeds of which each event is compared."""


def simulated(choice: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--engine", "raft", *arguments],
        cwd=compiled.PROJECT,
        env={**os.environ, compiled.VARIABLE: choice},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2_000:] + ran.stderr[-2_000:]
    return ran.stdout


def symbols(library: Path, *options: str) -> dict[str, int]:
    """Name to address of the functions that `nm` finds."""
    if shutil.which("nm") is None:
        without("nm (Debian and Ubuntu: apt-get install binutils)")
    told = subprocess.run(
        ["nm", "--defined-only", *options, library], capture_output=True, text=True, check=True
    ).stdout
    return {name: int(at, 16) for at, kind, name in map(str.split, told.splitlines()) if kind in "tT"}


def test_what_requests_pass_lies_side_by_side_and_errors_out_of_its_way(build: Path) -> None:
    """The list names functions of C, which are called after ours: where many are gone, `python -m bench.hot_functions`
    counts them anew."""
    (library,) = build.glob("*__mypyc*")
    addresses = symbols(library)
    ours = [name for name in native_layout.hot_functions() if name.startswith(("CPyDef_", "CPyPy_"))]
    there = sorted(addresses[name] for name in ours if name in addresses)
    assert len(there) >= 0.9 * len(ours), [name for name in ours if name not in addresses]
    whole = max(addresses.values()) - min(addresses.values())
    assert there[len(there) * 95 // 100] - there[0] < whole / 4, "they lie where they fell"
    split = sum(f"{name}.cold" in addresses for name in ours)
    assert split > len(there) / 2, "errors are handled within the functions"
    assert not [name for name in symbols(library, "--dynamic") if name.startswith("CPyDef_")]


SEEN_TURNS: Final = """
import sys
from pathlib import Path
from bench.turn import Cluster
from coordinator import records

assert records.quicken("coordinator") > 50
cluster = Cluster(Path(sys.argv[1]))
for work in ("write", "lock", "lock", "read"):
    cluster.ask_for(work, 2, release=False)
    sys.setprofile(lambda frame, what, _: what == "call" and print(frame.f_code.co_filename, frame.f_code.co_qualname))
    cluster.serve()
    sys.setprofile(None)
    assert len(cluster.answered()) == 2, work
"""


tuples_are_made_in_c = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="there Python makes named tuples (coordinator/_records.c)"
)


def interpreted(program: str, *arguments: str) -> set[tuple[str, ...]]:
    """File and name of each function that the interpreter begins in that program, which prints them."""
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=compiled.PROJECT,
        env={**os.environ, compiled.VARIABLE: "always"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2_000:]
    return {tuple(line.split(" ", 1)) for line in ran.stdout.splitlines()}


@tuples_are_made_in_c
def test_what_a_request_passes_in_a_node_is_not_interpreted(tmp_path: Path) -> None:
    """But for those who look on, and for what is made of decorators: each function that is costs memory that no cache
    has (docs/performance.md, What is looked for by its name)."""
    passed = interpreted(SEEN_TURNS, str(tmp_path))
    looks_on = str(compiled.PROJECT / "bench/turn.py")
    decorates = str(compiled.PROJECT / "coordinator/statemachine/performing.py")
    assert any(file == looks_on for file, _ in passed), "nothing was seen"
    assert not {(file, name) for file, name in passed if file not in (looks_on, decorates)}


SEEN_QUESTIONS: Final = """
import sys
import threading
from coordinator.client import Client, links
from tests.unit.client.test_sync import TOKEN, FakeChannel

links.new_channel = FakeChannel
client = Client("redis://nowhere", str(TOKEN))

def see(frame, what, _):
    if what == "call":
        print(frame.f_code.co_filename, frame.f_code.co_qualname)

def ask():
    for question in (lambda: client.put("a", b"x"), lambda: client.get("a"), lambda: client.acquire("a").release()):
        question()
        sys.setprofile(see)
        question()
        sys.setprofile(None)

caller = threading.Thread(target=ask)  # Alone, and so it does the work itself.
caller.start()
caller.join()
client.close()
"""
AT_THE_SURFACE: Final = {"surface", "asking", "options", "sync", "loop", "stepping"}
"""Modules of a client that stay Python (docs/architecture.md, Two programs)."""


@tuples_are_made_in_c
def test_what_a_question_passes_in_a_client_is_interpreted_at_its_surface_alone() -> None:
    passed = interpreted(SEEN_QUESTIONS)
    package = compiled.PROJECT / "coordinator"
    ours = {Path(file) for file, _ in passed if Path(file).is_relative_to(package)}
    assert ours == {package / "client" / f"{name}.py" for name in AT_THE_SURFACE}
    assert ("<string>", "<lambda>") not in passed, "Python made a named tuple: hand in all of its fields"


@pytest.mark.clockless
@pytest.mark.parametrize("seed", TRACED)
def test_a_seed_is_the_same_run_event_by_event(seed: int) -> None:
    traces = [simulated(choice, "--seed", str(seed), "--trace").splitlines() for choice in ("never", "always")]
    assert len(traces[0]) > 500
    assert traces[0] == traces[1]


@pytest.mark.clockless
def test_many_seeds_come_to_the_same() -> None:
    """As many events, elections, entries, faults and checks: all that a run counts."""
    counted = []
    for choice in ("never", "always"):
        said = json.loads(simulated(choice, "--seeds", "500-539", "--jobs", "2", "--json"))
        counted.append({name: value for name, value in said.items() if name not in ("took_s", "seeds_per_s")})
    assert counted[0]["seeds"] == 40
    assert counted[0] == counted[1]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("room", TESTED)
def test_a_room_passes_its_tests_compiled(room: str) -> None:
    """All of them, but for those that patch what is built in then."""
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "-m",
            "not slow and not long and not alone",
            f"tests/unit/{room}",
        ],
        cwd=compiled.PROJECT,
        env={**os.environ, compiled.VARIABLE: "always"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr[-2_000:]
    counted = {what: int(number) for number, what in re.findall(r"(\d+) (passed|skipped)", ran.stdout)}
    assert counted["passed"] > TESTED[room] * counted["skipped"], ran.stdout[-500:]
    assert counted["skipped"], "some can not pass, by which it is seen that these did not run interpreted"


def test_a_client_and_the_web_process_run_what_was_built(build: Path) -> None:
    asks = "from coordinator import compiled; from coordinator.client import core; print(compiled.is_used(), core)"
    environment = {name: value for name, value in os.environ.items() if name != compiled.VARIABLE}
    for imports in ("coordinator.client", "coordinator.asgi"):
        ran = subprocess.run(
            [sys.executable, "-c", f"import {imports}; {asks}"],
            cwd=compiled.PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.startswith("True "), (imports, ran.stdout)
        assert str(build) in ran.stdout, (imports, ran.stdout)


HOSTILE: Final = """
from coordinator import compiled
compiled.use()
from coordinator import wire
for kind in (-(2**63), -100, 99, 2**31, 2**63 - 1, 2**63, 2**64 - 1):
    try:
        wire.decode_peer(wire.encode([(1, 2, 3, kind, None)]))
    except wire.WireError as error:
        assert error.reason == "malformed"
    else:
        raise SystemExit(f"{kind} is taken for a kind")
"""


@pytest.mark.parametrize("choice", ["never", "always"])
def test_a_kind_that_there_is_not_is_malformed(choice: str) -> None:
    """An index that is no machine word is another error in each of them."""
    subprocess.run(
        [sys.executable, "-c", HOSTILE], cwd=compiled.PROJECT, env={**os.environ, compiled.VARIABLE: choice}, check=True
    )


EVERYTHING: Final = """
from coordinator import compiled
compiled.use()
from coordinator.statemachine.commands import SetPrincipal
from coordinator.statemachine.permissions import Permission
from coordinator.statemachine.principals import Principal, access_of
from coordinator.statemachine.state import State
state = State()
deputy = Principal(SetPrincipal("deputy", ()))
deputy.permissions = (Permission("", ("administer",)),)
state.principals.rows["deputy"] = deputy
assert access_of(state, "deputy").may("administer"), "everything is a prefix too"
"""


@pytest.mark.parametrize("choice", ["never", "always"])
def test_whoever_administers_everything_by_a_permission_may_in_both(choice: str) -> None:
    """One program applied what the other refused: their replicas had other states."""
    subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        cwd=compiled.PROJECT,
        env={**os.environ, compiled.VARIABLE: choice},
        check=True,
    )


PAGE: Final = """
from coordinator import compiled
compiled.use()
import msgspec
from coordinator.statemachine.commands import LEVEL, Command, Genesis, OpenSession, PutKey, SetPrincipal
from coordinator.statemachine.commands import Transact, Transacted
from coordinator.statemachine.files import TRANSACTION_ROWS_MAX, ReadRange
from coordinator.statemachine.machine import Machine, encode_entry, encode_node_entry

machine = Machine()
machine.apply(1, encode_node_entry(Genesis(7, "", 0, (SetPrincipal("ci", ("read", "write")),), (), LEVEL)))

def ask(op, session, number):
    command = Command(session, number, number, op)
    return machine.apply(machine.applied + 1, encode_entry("ci", "", msgspec.msgpack.encode(command)))

session = ask(OpenSession(15_000, b""), 0, 0).session
for number in range(TRANSACTION_ROWS_MAX // 2 + 2):
    ask(PutKey(f"key{number}", b""), session, number)
first = ReadRange("key", prefix=True, revision=machine.applied - 1, limit=1)
assert isinstance(ask(Transact((), (first,)), session, number + 1), Transacted)
"""


@pytest.mark.parametrize("choice", ["never", "always"])
def test_a_page_of_a_range_goes_no_further_than_it_is_long_in_both(choice: str) -> None:
    """One program refused what the other applied, for the rows that it went over: their replicas had other states."""
    subprocess.run(
        [sys.executable, "-c", PAGE], cwd=compiled.PROJECT, env={**os.environ, compiled.VARIABLE: choice}, check=True
    )


def test_a_bug_is_planted_in_the_interpreted_modules_alone() -> None:
    with pytest.raises(AssertionError, match="unset CONCLAVE_COMPILED"):
        simulated("always", "--mutant", "vote-not-persisted", "--seed", "1")
