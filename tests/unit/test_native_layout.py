"""What the linker is told of the functions that requests pass, and how these are counted."""

from __future__ import annotations

import io

import pytest
from setuptools.errors import CompileError, LinkError

from bench import hot_functions
from coordinator import compiling, native_layout
from coordinator.native_layout import Flags


class Compiler:
    """As setuptools' own. What is in `unknown` it refuses."""

    def __init__(self, *unknown: str) -> None:
        self.unknown = unknown

    def compile(self, files: list[str], *, output_dir: str, extra_postargs: list[str]) -> list[str]:
        if any(flag.startswith(self.unknown) for flag in extra_postargs):
            raise CompileError("unknown option")
        return [f"{output_dir}/{len(files)}.o"]

    def link_shared_object(self, _made: list[str], _target: str, *, extra_postargs: list[str]) -> None:
        if any(flag.startswith(self.unknown) for flag in extra_postargs):
            raise LinkError("unknown option")


def test_the_functions_of_the_list_are_taken_in_its_order_and_what_was_made_of_them_beside():
    script = native_layout.linker_script(["b", "a"])
    assert [line.strip() for line in script.splitlines() if "*(" in line] == [
        "*(.text.b .text.b.*)",
        "*(.text.a .text.a.*)",
    ]
    assert script.rstrip().endswith("INSERT BEFORE .text;")


def test_the_list_of_the_project_is_names_each_once():
    names = native_layout.hot_functions()
    assert len(names) > 500
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("line", ["a) *(.text", "a b;c", "ä", "1a", "a;", "*"])
def test_a_line_that_is_no_name_is_refused(tmp_path, line):
    file = tmp_path / "hot.txt"
    file.write_text(f"good\n{line}\n")
    with pytest.raises(ValueError, match="expected names of C functions, one a line; got"):
        native_layout.hot_functions(file)


@pytest.mark.parametrize(
    ("unknown", "is_laid_out"), [((), True), (("-Wl,-T",), False), (("-ffunction-sections",), False)]
)
def test_where_the_tools_do_not_know_how_code_lies_where_it_falls(tmp_path, unknown, is_laid_out):
    told = io.StringIO()
    flags = compiling._layout(Compiler(*unknown), tmp_path, told)
    assert (flags != Flags()) == is_laid_out
    assert ("not laid out for requests" in told.getvalue()) != is_laid_out


def test_the_flags_name_what_was_written(tmp_path):
    flags = native_layout.write(tmp_path)
    assert f"-Wl,-T,{tmp_path / 'hot.ld'}" in flags.linker
    assert (tmp_path / "hot.ld").read_text() == native_layout.linker_script(native_layout.hot_functions())
    assert flags.compiler[flags.compiler.index("-include") + 1] == str(tmp_path / "cold.h")
    assert (tmp_path / "cold.h").read_text() == native_layout.COLD


def test_calls_are_counted_over_all_files_and_the_most_called_ones_are_first():
    def report(**counts: int) -> dict[str, object]:
        return {"files": [{"functions": [{"name": name, "execution_count": n} for name, n in counts.items()]}]}

    calls = hot_functions.calls_of([report(often=900, seldom=3, b=5), report(often=200, a=5)])
    assert hot_functions.hottest(calls, 5) == ["often", "a", "b"]
