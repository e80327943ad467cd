"""Which build a node loads, and when it loads none."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import compiled, compiling


@pytest.fixture
def builds(tmp_path: Path) -> Iterator[Path]:
    """A directory of builds; what of them is made to be found is found no more at the end."""
    finders = [*sys.meta_path]
    yield tmp_path / "compiled"
    sys.meta_path[:] = finders
    sys.modules.pop("conclave_probe", None)


def put_build(builds: Path, module: str = "conclave_probe") -> Path:
    build = builds / compiled.digest()
    build.mkdir(parents=True)
    (build / "probe.py").write_text("SAYS = 'built'\n")
    (build / compiled.MODULES).write_text(json.dumps({module: ("probe.py", compiled.checksum(build / "probe.py"))}))
    return build


def test_what_was_built_of_these_sources_is_imported(builds):
    build = put_build(builds)
    assert compiled.use({}, builds) == (True, f"compiled: {build}")
    assert compiled.is_used()
    conclave_probe = importlib.import_module("conclave_probe")
    assert conclave_probe.SAYS == "built"
    assert conclave_probe.__file__ == str(build / "probe.py")


def test_where_nothing_is_built_it_says_how(builds):
    used, note = compiled.use({}, builds)
    assert not used
    assert "no build of these sources" in note
    assert "make compile" in note
    assert not compiled.is_used()


def test_a_build_can_be_left_alone(builds):
    put_build(builds)
    assert compiled.use({compiled.VARIABLE: "never"}, builds) == (
        False,
        "interpreted, as CONCLAVE_COMPILED=never asks",
    )
    assert not compiled.is_used()


def test_another_interpreter_of_the_process_leaves_it_to_the_first(builds):
    """Under mod_wsgi the client of the first program that was there ended with what mypyc keeps for the process."""
    put_build(builds)
    looks = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(compiled.PROJECT)!r})
from coordinator import compiled
print(compiled.use({{}}, Path({str(builds)!r})))
"""
    program = f"""
import _xxsubinterpreters
exec({looks!r})
_xxsubinterpreters.run_string(_xxsubinterpreters.create(isolated=False), {looks!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("Use(compiled=True")
    assert second.startswith("Use(compiled=False, note='interpreted: native code of mypyc serves one interpreter")


def test_a_build_can_be_asked_for(builds):
    with pytest.raises(SystemExit, match="CONCLAVE_COMPILED: there is no build of these sources"):
        compiled.use({compiled.VARIABLE: "always"}, builds)
    put_build(builds)
    assert compiled.use({compiled.VARIABLE: "always"}, builds).compiled


def test_another_choice_is_refused(builds):
    with pytest.raises(SystemExit, match="CONCLAVE_COMPILED: expected one of auto, always, never; got 'yes'"):
        compiled.use({compiled.VARIABLE: "yes"}, builds)


@pytest.mark.parametrize(
    "said", ["", "{", "[]", "3", '{"a": "probe.py"}', '{"a": ["gone.so", ""]}', '{"a": 3}', "\x00"]
)
def test_a_build_that_is_not_whole_is_none(builds, said):
    build = put_build(builds)
    (build / compiled.MODULES).write_text(said)
    assert not compiled.use({}, builds).compiled


@pytest.mark.parametrize("kept", [0, 5, -1])
def test_a_file_that_lost_something_is_not_loaded(builds, kept):
    """As after a loss of power: the name is there, and what was written is not."""
    build = put_build(builds)
    (build / "probe.py").write_bytes((build / "probe.py").read_bytes()[:kept])
    assert not compiled.use({}, builds).compiled
    assert not compiled.is_used()


def test_too_late_is_a_defect(builds):
    """Half of the modules compiled and half not would be a third program."""
    put_build(builds, "coordinator.compiled")
    with pytest.raises(RuntimeError, match=r"imported before the compiled modules could be: coordinator\.compiled"):
        compiled.use({}, builds)


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program of a user; tests have said what they run."""
    monkeypatch.setattr(compiled, "_is_settled", False)


@pytest.mark.usefixtures("unsettled")
@pytest.mark.parametrize("choice", ["", "auto", "always"])
def test_a_client_runs_what_was_built(builds, choice):
    put_build(builds)
    compiled.use_in_client({compiled.VARIABLE: choice}, builds)
    assert compiled.is_used()
    finders = [*sys.meta_path]
    compiled.use_in_client({compiled.VARIABLE: choice}, builds)
    assert sys.meta_path == finders


@pytest.mark.parametrize("choice", ["", "always"])
def test_where_a_program_has_settled_what_it_runs_a_client_leaves_it_at_that(builds, choice):
    put_build(builds)
    compiled.use_in_client({compiled.VARIABLE: choice}, builds)
    assert not compiled.is_used()


@pytest.mark.usefixtures("unsettled")
@pytest.mark.parametrize(
    ("choice", "module", "said"),
    [
        ("never", "conclave_probe", []),
        ("yes", "conclave_probe", ["expected one of auto, always, never; got 'yes'"]),
        ("", "coordinator.compiled", []),
        ("always", "coordinator.compiled", []),
    ],
)
def test_what_speaks_against_it_ends_no_clients_program(builds, caplog, choice, module, said):
    """It is a guest there; nodes refuse to start."""
    put_build(builds, module)
    with caplog.at_level("WARNING"):
        compiled.use_in_client({compiled.VARIABLE: choice}, builds)
    assert not compiled.is_used()
    assert [record.message.partition("COMPILED: ")[2] for record in caplog.records] == said


@pytest.mark.usefixtures("unsettled")
def test_a_client_whose_build_was_asked_for_and_is_not_there_says_so(builds, caplog):
    with caplog.at_level("WARNING"):
        compiled.use_in_client({compiled.VARIABLE: "always"}, builds)
        assert "there is no build of these sources" in caplog.text
        caplog.clear()
        compiled.use_in_client({}, builds)
    assert not caplog.records
    assert not compiled.is_used()


@pytest.fixture
def build_that_can_not_be_loaded(builds: Path) -> Path:
    """As where it lies on a file system that nothing is run from."""
    build = put_build(builds)
    (build / "probe.py").write_text("raise ImportError('can not be mapped')\n")
    named = {"conclave_probe": ("probe.py", compiled.checksum(build / "probe.py"))}
    (build / compiled.MODULES).write_text(json.dumps(named))
    return build


def test_a_node_whose_build_can_not_be_loaded_says_so(builds, build_that_can_not_be_loaded):
    used, note = compiled.use({}, builds)
    assert not used
    assert note == f"interpreted: the build in {build_that_can_not_be_loaded} can not be loaded: can not be mapped"
    assert not compiled.is_used()
    with pytest.raises(SystemExit, match=r"CONCLAVE_COMPILED: the build in .* can not be loaded: can not be mapped"):
        compiled.use({compiled.VARIABLE: "always"}, builds)
    assert not compiled.is_used()


@pytest.mark.usefixtures("unsettled", "build_that_can_not_be_loaded")
def test_a_client_whose_build_can_not_be_loaded_runs_interpreted(builds, caplog):
    with caplog.at_level("WARNING"):
        compiled.use_in_client({}, builds)
    assert not compiled.is_used()
    assert "can not be mapped" in caplog.text


@pytest.mark.usefixtures("unsettled")
def test_where_a_client_may_not_look_for_a_build_it_runs_interpreted(builds, monkeypatch):
    def refuse(path: Path) -> bool:
        raise PermissionError(f"may not look at {path}")

    with monkeypatch.context() as forbidden:
        forbidden.setattr(Path, "is_dir", refuse)
        compiled.use_in_client({}, builds)
    assert not compiled.is_used()


@pytest.mark.usefixtures("unsettled")
def test_where_nothing_was_ever_built_a_client_reads_no_sources(builds, monkeypatch):
    """As where it is installed as a package."""
    monkeypatch.setattr(compiled, "digest", lambda: pytest.fail("it was looked for"))
    compiled.use_in_client({}, builds)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for source in compiled.SOURCES:
        path = tmp_path / "coordinator" / source
        (path if path.suffix else path / "deep" / "module.py").parent.mkdir(parents=True, exist_ok=True)
        (path if path.suffix else path / "deep" / "module.py").write_text("x = 1\n")
    (tmp_path / "coordinator" / "views.py").write_text("x = 1\n")
    for name in compiled.PINNED:
        (tmp_path / name).write_text("mypy==2\n")
    return tmp_path


def test_a_build_is_of_its_sources_and_of_nothing_else(project):
    before = compiled.digest(project)
    (project / "coordinator" / "views.py").write_text("x = 2\n")
    assert compiled.digest(project) == before
    for source in (*compiled.SOURCES, *compiled.PINNED):
        path = project / source if source in compiled.PINNED else project / "coordinator" / source
        file = path if path.suffix else path / "deep" / "module.py"
        known = file.read_text()
        file.write_text("x = 2\n")
        assert compiled.digest(project) != before, source
        file.write_text(known)
    assert compiled.digest(project) == before
    (project / "coordinator" / "wire" / "deep" / "module.py").rename(project / "coordinator" / "wire" / "module.py")
    assert compiled.digest(project) != before


def test_what_a_module_is_compiled_with_is_what_a_build_depends_on():
    """Constants and classes of other modules are in what is compiled, too."""
    covered = {f"coordinator.{source.removesuffix('.py')}" for source in compiled.SOURCES}
    for source in compiling.sources():
        for node in ast.walk(ast.parse((compiled.PROJECT / source).read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("coordinator"):
                continue
            names = [f"coordinator.{alias.name}" for alias in node.names] if node.module == "coordinator" else []
            for name in names or [str(node.module)]:
                assert ".".join(name.split(".")[:2]) in covered, f"{source} imports {name}"


def test_all_that_is_named_is_there():
    assert all((compiled.PROJECT / source).is_file() for source in compiling.sources())
    named = {f"coordinator/{name.replace('.', '/')}.py" for name in compiling.LEFT_OUT}
    assert all((compiled.PROJECT / source).is_file() for source in named)
    assert not named & set(compiling.sources())


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked for before anything is compiled, also on a machine that has none of it."""
    monkeypatch.setenv("CC", sys.executable)
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda _: str(tmp_path))


def test_without_a_compiler_it_says_so(builds, monkeypatch, capsys):
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.raises(compiling.CannotCompile, match="there is no C compiler no-such-compiler"):
        compiling.build(builds)
    monkeypatch.setattr(compiled, "BUILDS", builds)
    assert compiling.main(["--if-possible"]) == 0
    assert "it is run interpreted: there is no C compiler" in capsys.readouterr().err
    assert compiling.main([]) == 1
    assert not list(builds.glob("*"))


def compile_nothing(making: Path) -> None:
    (making / "lib").mkdir()
    (making / "lib" / "probe.py").write_text("")
    sums = {"conclave_probe": ("probe.py", compiled.checksum(making / "lib" / "probe.py"))}
    (making / "lib" / compiled.MODULES).write_text(json.dumps(sums))


@pytest.mark.usefixtures("toolchain")
def test_older_builds_go_and_what_is_being_made_stays(builds, monkeypatch):
    monkeypatch.setattr(compiling, "compile_into", compile_nothing)
    for name in ("0123", "making-now", "making-long-ago"):
        (builds / name).mkdir(parents=True)
    os.utime(builds / "making-long-ago", (0, 0))
    (builds / compiled.digest()).mkdir()  # One that was cut off.
    made = compiling.build(builds)
    assert {path.name for path in builds.iterdir()} == {compiled.digest(), "making-now"}
    assert compiled.modules_of(made)
    assert compiling.build(builds) == made


@pytest.mark.usefixtures("toolchain")
def test_of_two_that_compile_at_once_the_first_one_made_the_build(builds, monkeypatch):
    """A node that has begun to load it may still look for some of its files."""

    def compile_beside_another(making: Path) -> None:
        monkeypatch.setattr(compiling, "compile_into", compile_nothing)
        first.append(compiling.build(builds).stat().st_ino)
        compile_nothing(making)

    first: list[int] = []
    monkeypatch.setattr(compiling, "compile_into", compile_beside_another)
    made = compiling.build(builds)
    assert [made.stat().st_ino] == first
    assert [*builds.iterdir()] == [made]


@pytest.mark.usefixtures("toolchain")
def test_what_was_compiled_of_sources_that_changed_meanwhile_is_no_build(builds, monkeypatch):
    monkeypatch.setattr(
        compiling, "compile_into", lambda making: monkeypatch.setattr(compiled, "digest", lambda: "another")
    )
    with pytest.raises(compiling.CannotCompile, match="a source was changed meanwhile"):
        compiling.build(builds)
    assert not list(builds.iterdir())


@pytest.mark.usefixtures("toolchain")
def test_where_it_may_not_write_it_says_so(builds, monkeypatch, capsys):
    builds.write_text("a file")
    monkeypatch.setattr(compiled, "BUILDS", builds)
    assert compiling.main(["--if-possible"]) == 0
    assert "it is run interpreted" in capsys.readouterr().err


@pytest.mark.usefixtures("toolchain")
def test_what_the_compiler_says_is_told_and_nothing_stays_behind(builds, monkeypatch):
    monkeypatch.setattr(compiling, "sources", lambda: ["coordinator/no_such_module.py"])
    with pytest.raises(compiling.CannotCompile, match="no_such_module"):
        compiling.build(builds)
    assert not list(builds.iterdir())


def yields_within(node: ast.AST, *, is_kept: bool = False) -> Iterator[int]:
    """Lines at which what is in hand of `node` is handed out within a handler, a `with`, or before a `finally`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield from yields_within(child)
        elif isinstance(child, (ast.Yield, ast.YieldFrom)) and is_kept:
            yield child.lineno
        else:
            keeps = isinstance(child, (ast.ExceptHandler, ast.With)) or (isinstance(child, ast.Try) and child.finalbody)
            yield from yields_within(child, is_kept=is_kept or bool(keeps))


def test_nothing_that_is_compiled_yields_within_a_handler():
    """It leaves the error with whoever runs it: a caller's own `raise` raised that of another thread's question."""
    program = "def flow():\n try:\n  yield\n except OSError:\n  if True:\n   yield\n"
    assert [*yields_within(ast.parse(program))] == [6]
    found = [(file, [*yields_within(ast.parse((compiled.PROJECT / file).read_text()))]) for file in compiling.sources()]
    assert [(file, lines) for file, lines in found if lines] == []


def caught_as_another(tree: ast.Module) -> list[int]:
    """The lines of handlers that call an error as an earlier one of the same function calls one of another type."""
    found = []
    for function in ast.walk(tree):
        types: dict[str, str] = {}
        if isinstance(function, ast.FunctionDef):
            for handler in ast.walk(function):
                if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type:
                    kind = ast.unparse(handler.type)
                    if types.setdefault(handler.name, kind) != kind:
                        found.append(handler.lineno)
    return found


def test_nothing_that_is_compiled_calls_errors_of_two_types_the_same():
    """The name has the type of the first there: what another handler caught was a TypeError, where that is compiled."""
    program = "def flow():\n try:\n  work()\n except OSError as error:\n  pass\n except ValueError as error:\n  pass\n"
    assert caught_as_another(ast.parse(program)) == [6]
    found = [
        (file, caught_as_another(ast.parse((compiled.PROJECT / file).read_text()))) for file in compiling.sources()
    ]
    assert [(file, lines) for file, lines in found if lines] == []


TAKE_ALL = frozenset(
    {
        *("any", "all", "sum", "min", "max", "sorted", "join"),
        *("tuple", "list", "set", "frozenset", "dict", "fromkeys", "deque", "OrderedDict"),
        *("extend", "update", "union"),
    }
)


def made_whole(tree: ast.Module) -> list[int]:
    """The lines of generator expressions that somebody may not take to their end. (`next` of one is no more than a
    loop in either program.)"""
    found = []
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.GeneratorExp) and not isinstance(node, ast.Starred):
                taker = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
                if taker != "next" and taker not in TAKE_ALL:
                    found.append(child.lineno)
    return found


def test_nothing_that_is_compiled_makes_more_than_is_taken_of_it():
    """There a generator expression is a list: a page of one key went over all keys, and counted them."""
    program = (
        "def of(x):\n a = (y for y in x)\n any(y for y in x)\n next(y for y in x)\n [*(y for y in x)]\n"
        " for z in (y for y in x):\n  islice((y for y in x), 3)\n return (y for y in x)\n"
    )
    assert made_whole(ast.parse(program)) == [2, 6, 8, 7]
    found = [(file, made_whole(ast.parse((compiled.PROJECT / file).read_text()))) for file in compiling.sources()]
    assert [(file, lines) for file, lines in found if lines] == []


def changed_within(tree: ast.Module) -> list[int]:
    """The lines of loops that give a name that they go over, or up to, another value."""
    return [
        loop.lineno
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For)
        and {node.id for node in ast.walk(loop.iter) if isinstance(node, ast.Name)}
        & {
            node.id
            for part in loop.body
            for node in ast.walk(part)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
    ]


def test_nothing_that_is_compiled_changes_what_it_goes_over_within_the_loop():
    """There the loop goes on over the new one, and ends where that does."""
    program = "def of(x, n):\n for y in x:\n  x = [y]\n for y in range(n):\n  n -= 1\n for y in x:\n  z = x\n"
    assert changed_within(ast.parse(program)) == [2, 4]
    found = [(file, changed_within(ast.parse((compiled.PROJECT / file).read_text()))) for file in compiling.sources()]
    assert [(file, lines) for file, lines in found if lines] == []


def identities_of_constants(tree: ast.Module) -> list[int]:
    """The lines at which something is asked to be the very object that a constant of a module names."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for operator, other in zip(node.ops, node.comparators, strict=True)
        if isinstance(operator, (ast.Is, ast.IsNot)) and isinstance(other, ast.Name) and other.id.isupper()
    ]


def test_nothing_that_is_compiled_asks_whether_a_constant_is_the_same_object():
    """A tuple that is compiled in is made anew each time: replicas of the two programs had other states."""
    program = "ALL = ('',)\nwhole = names is ALL\npart = names is not ALL\nalike = names == ALL or names is None\n"
    assert identities_of_constants(ast.parse(program)) == [2, 3]
    found = [
        (file, identities_of_constants(ast.parse((compiled.PROJECT / file).read_text())))
        for file in compiling.sources()
    ]
    assert [(file, lines) for file, lines in found if lines] == []
