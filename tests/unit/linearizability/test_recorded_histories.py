"""The checker against judges from outside: histories of a real etcd and of a key-value store, with known verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.linearizability.__main__ import main

DATA = Path(__file__).parents[2] / "data"


def verdicts(capsys: pytest.CaptureFixture[str], model: str, files: list[Path]) -> dict[str, str]:
    """File name to what the command line says of it."""
    main(["--model", model, *map(str, files)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(files)
    return {Path(line.split(" ", 1)[0]).name: line.split(" ", 1)[1] for line in lines}


def test_all_histories_of_a_register_are_judged_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (DATA / "jepsen" / "verdicts.tsv").read_text().splitlines()
    known = dict(row.split("\t")[:2] for row in rows if row.startswith("etcd_"))
    assert len(known) == 52
    said = verdicts(capsys, "register", [DATA / "jepsen" / name for name in known])
    assert {name: verdict == "linearizable" for name, verdict in said.items()} == {
        name: verdict in {"linearizable", "true", "ok"} for name, verdict in known.items()
    }
    assert set(said.values()) == {"linearizable", "not linearizable"}


def test_all_histories_of_a_key_value_store_are_judged_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((DATA / "porcupine-kv").glob("*.txt"))
    assert len(files) == 4
    for name, verdict in verdicts(capsys, "kv", files).items():
        assert (verdict == "linearizable") == name.endswith("-ok.txt"), name
