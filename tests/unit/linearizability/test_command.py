"""The command: its lines, its exit status, and what it says of bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.linearizability.__main__ import main

ROOT = Path(__file__).parents[3]
GOOD = "INFO  jepsen.util - 0\t:invoke\t:write\t1\nINFO  jepsen.util - 0\t:ok\t:write\t1\n"
BAD = GOOD + "INFO  jepsen.util - 1\t:invoke\t:read\tnil\nINFO  jepsen.util - 1\t:ok\t:read\tnil\n"
BROKEN = GOOD + "what is this\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("good.log", GOOD), ("bad.log", BAD), ("broken.log", BROKEN)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.usefixtures("files")
class TestVerdicts:
    def judge(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
        status = main(["--model", "register", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    def test_status_0_if_all_are_linearizable(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.judge(capsys, "good.log", "./good.log") == (
            0,
            "good.log linearizable\n./good.log linearizable\n",
            "",
        )

    def test_status_1_if_any_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.judge(capsys, "bad.log", "good.log") == (
            1,
            "bad.log not linearizable\ngood.log linearizable\n",
            "",
        )

    def test_status_2_on_bad_input_and_the_other_files_are_judged(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = self.judge(capsys, "broken.log", "none.log", "bad.log")
        assert status == 2
        assert out == "bad.log not linearizable\n"
        assert err.splitlines() == [
            "broken.log, line 3: expected 'INFO  jepsen.util - PROCESS :TYPE :FUNCTION VALUE', got 'what is this'",
            "none.log: No such file or directory",
        ]

    @pytest.mark.parametrize(
        ("model", "whole"),
        [
            ("register", GOOD),
            ("kv", '{:process 0, :type :invoke, :f :get, :key "k", :value nil}\n{:process 0, :type :ok, :f :get}\n'),
        ],
    )
    def test_a_last_line_that_is_cut_off_is_named_with_its_file(
        self, model: str, whole: str, files: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        begins = whole.index("\n") + 1
        for length in range(begins + 1, len(whole) - 3):
            (files / "cut").write_text(whole[:length])
            assert main(["--model", model, "cut"]) == 2, whole[:length]
            output = capsys.readouterr()
            assert output.out == ""
            assert output.err.startswith("cut, line 2: expected ")

    def test_status_3_if_the_time_limit_came_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.judge(capsys, "--time-limit-s", "1e-9", "good.log") == (3, "good.log unknown\n", "")

    def test_a_picture_is_written_for_what_is_not_linearizable(
        self, capsys: pytest.CaptureFixture[str], files: Path
    ) -> None:
        (files / "again").mkdir()
        (files / "again" / "bad.log").write_text(BAD)
        self.judge(capsys, "--picture", "pictures/here", "good.log", "bad.log", "again/bad.log")
        written = sorted(path.name for path in (files / "pictures" / "here").iterdir())
        assert written == ["bad.log.3.svg", "bad.log.svg"]
        assert ElementTree.parse(files / "pictures" / "here" / "bad.log.svg").getroot().tag.endswith("svg")

    def test_a_picture_that_can_not_be_written_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = self.judge(capsys, "--picture", "good.log", "bad.log")
        assert (status, out) == (2, "bad.log not linearizable\n")
        assert err == "good.log/bad.log.svg: File exists\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--model", "register"], ["--model", "queue", "a"], ["--model", "kv", "--time-limit-s", "0", "a"], ["a"]],
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_says_what_the_statuses_mean(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "exit status:" in out
    for status in range(4):
        assert f"\n  {status}  " in out


def test_it_runs_as_a_module_and_prints_any_file_name(tmp_path: Path) -> None:
    name = bytes(tmp_path) + b"/\xff.log"
    Path(name.decode(errors="surrogateescape")).write_text(GOOD)
    run = subprocess.run(
        [sys.executable, "-m", "tests.linearizability", "--model", "register", name],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, name + b" linearizable\n", b"")
