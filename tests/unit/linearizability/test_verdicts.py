"""The recorded histories with known verdicts: 52 of a real etcd, and those of a key-value store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.linearizability import jepsen, porcupine_kv
from tests.linearizability.__main__ import FORMATS, main
from tests.linearizability.checker import Verdict, check
from tests.linearizability.source import numbered_lines

DATA = Path(__file__).parents[2] / "data"
CPU_SECONDS_MAX = 20.0


def verdicts(directory: str) -> list[tuple[Path, str]]:
    lines = (DATA / directory / "verdicts.tsv").read_text().splitlines()
    return [(DATA / directory / name, verdict) for name, verdict in (line.split("\t") for line in lines)]


def as_parameters(directory: str) -> list[object]:
    return [pytest.param(path, verdict, id=path.stem) for path, verdict in verdicts(directory)]


def judge(model_name: str, path: Path) -> tuple[str, float]:
    new_model, parse = FORMATS[model_name]
    started = time.process_time()
    outcome = check(new_model(), parse(numbered_lines(str(path)), str(path)))
    return outcome.verdict.value, time.process_time() - started


@pytest.mark.parametrize(("path", "verdict"), as_parameters("jepsen"))
def test_each_jepsen_history_has_its_known_verdict(path: Path, verdict: str) -> None:
    found, cpu_s = judge("register", path)
    assert found == verdict
    assert cpu_s < CPU_SECONDS_MAX


@pytest.mark.parametrize(("path", "verdict"), as_parameters("porcupine-kv"))
def test_each_key_value_history_has_its_known_verdict(path: Path, verdict: str) -> None:
    found, cpu_s = judge("kv", path)
    assert found == verdict
    assert cpu_s < CPU_SECONDS_MAX


def test_the_data_is_whole() -> None:
    assert len(verdicts("jepsen")) == 52
    assert {path for path, _ in verdicts("jepsen")} == set((DATA / "jepsen").glob("*.log"))
    assert {path for path, _ in verdicts("porcupine-kv")} == set((DATA / "porcupine-kv").glob("*.txt"))
    for directory in ("jepsen", "porcupine-kv"):
        assert "Copyright (c) 2017-2024 Anish Athalye" in (DATA / directory / "LICENSE").read_text()


def test_every_line_of_the_data_is_read() -> None:
    for path, _ in verdicts("jepsen"):
        lines = path.read_text().splitlines()
        operations = jepsen.parse(numbered_lines(str(path)), str(path))
        assert len(operations) == sum(":invoke" in line for line in lines) - sum(
            ":fail" in line and ":read" in line for line in lines
        )
    for path, _ in verdicts("porcupine-kv"):
        operations = porcupine_kv.parse(numbered_lines(str(path)), str(path))
        assert len(operations) == path.read_text().count(":invoke")
        assert not any(operation.outcome_is_unknown for operation in operations)


def test_the_command_prints_each_file_as_given_with_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    known = verdicts("jepsen")
    status = main(["--model", "register", *(str(path) for path, _ in known)])
    assert capsys.readouterr().out == "".join(f"{path} {verdict}\n" for path, verdict in known)
    assert status == 1
    assert Verdict("not linearizable") is Verdict.NOT_LINEARIZABLE
