"""Compile with mypyc what nodes and clients do for each request (coordinator/compiled.py).

    python -m coordinator.compiling [--if-possible]

Takes a minute on two processors, a C compiler, and what requirements-compile.txt lists. Where a build of these
sources is there already, nothing is done. With --if-possible whatever is missing is said, and is no failure.

What is compiled is what each request passes, on a node and in a client. A module that defines msgspec's structures
cannot be, for their class is made by a metaclass of its own. One module of a few functions is written in C
(coordinator/client/parker.py says why), and takes a second.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TextIO

from coordinator import compiled, native_layout
from coordinator.native_layout import Flags

WHOLE: Final = ("consensus", "statemachine", "wire")
"""Packages of which every module is compiled that can be."""
EXTENSIONS: Final = ("coordinator._records", "coordinator.client._parker")
"""Modules that are written in C."""
OF_THE_REPLICA: Final = (
    "broken_holds",
    "cached_reads",
    "caching",
    "callers",
    "checkpoints",
    "comparison",
    "delays",
    "delegation",
    "feed",
    "gathering",
    "grants",
    "history",
    "host",
    "in_flight",
    "ingress",
    "journal",
    "leases",
    "levels",
    "lifecycle",
    "links",
    "listeners",
    "log_bytes",
    "mailbox",
    "meters",
    "operations",
    "ports",
    "reading",
    "reads",
    "replica",
    "round_trips",
    "sleep",
    "spans",
    "stamps",
    "states",
    "stored",
    "sums",
    "tenure",
    "touched",
    "turn",
    "wal",
    "watches",
    "watching",
    "whereabouts",
    "windows",
    "yielding",
)
"""What a turn of a node passes. The rest of that package is Celery's, or runs once in a while."""
OF_THE_CLIENT: Final = (
    "cache",
    "cached_reads",
    "calls",
    "clock",
    "core",
    "crowd",
    "discovery",
    "flows",
    "grants",
    "hands",
    "jobs",
    "lease",
    "links",
    "lock_flows",
    "outstanding",
    "packets",
    "replies",
    "room",
    "routing",
    "session",
    "session_keeper",
    "stack",
    "work",
)
"""What is below the surface of a client. Not what its users see, and may subclass and patch; nor what checks what they
say (`options.py`), since types are checked in what is compiled, with an error of its own; nor the loop (`loop.py`),
since what is thrown into a thread needs a moment to strike in; nor how a flow is stepped (`stepping.py`), which see."""
LEFT_OUT: Final = frozenset(
    {
        "consensus.members",
        "consensus.raft.messages",
        "statemachine.commands.client_ops",
        "statemachine.commands.entries",
        "statemachine.commands.queries",
        "statemachine.commands.results",
        "statemachine.files",
        "statemachine.items",
        "statemachine.lock_commands",
        "statemachine.performing",
        "statemachine.permissions",
        "statemachine.snapshot_items",
        "statemachine.snapshot_v1",
        "statemachine.structs",
        "wire.feed",
        "wire.peers",
        "wire.refusal",
        "wire.replies",
        "wire.requests",
        "wire.structs",
    }
)
"""What msgspec reads the fields of, at run time, and what registers itself by decorators."""
OPTIONS: Final = ("--ignore-missing-imports", "--follow-imports=silent", "--check-untyped-defs", "--config-file=")
OPTIMISATION: Final = "2"
"""Of the C compiler: from here on it moves what is cold out of the functions (native_layout.py)."""

MAKING: Final = "making-"
MAKING_S_MAX: Final = 3_600.0
"""What is older was left by one that was killed."""


class CannotCompile(Exception):
    """Says what is missing, or what went wrong."""


def sources() -> list[str]:
    """Of the modules that are compiled, relative to the project."""
    package = compiled.PROJECT / "coordinator"
    files = [file for name in WHOLE for file in sorted((package / name).rglob("*.py"))]
    files += [package / "channel.py"]
    files += [package / "replica" / f"{name}.py" for name in OF_THE_REPLICA]
    files += [package / "client" / f"{name}.py" for name in OF_THE_CLIENT]
    return [
        file.relative_to(compiled.PROJECT).as_posix()
        for file in files
        if file.name != "__init__.py" and ".".join(file.relative_to(package).with_suffix("").parts) not in LEFT_OUT
    ]


def build(builds: Path) -> Path:
    """Compile what there is, and give where; at once where it is there already. Of older builds nothing is kept: a node
    that runs one has it open. Raises CannotCompile."""
    digest = compiled.digest()
    target = builds / digest
    if compiled.modules_of(target):
        return target
    _look_for_tools()
    builds.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=MAKING, dir=builds) as making:
        compile_into(Path(making))
        if compiled.digest() != digest:
            raise CannotCompile("a source was changed meanwhile: which one was compiled is not known")
        if not compiled.modules_of(target):  # Else another one was quicker, and a node may be loading that by now.
            if target.exists():  # one that is not whole
                shutil.rmtree(target)
            try:
                Path(making, "lib").rename(target)
            except OSError:
                if not compiled.modules_of(target):
                    raise
    for other in builds.iterdir():
        with contextlib.suppress(FileNotFoundError):  # Another one that compiles clears up, too.
            is_being_made = other.name.startswith(MAKING) and time.time() - other.stat().st_mtime < MAKING_S_MAX
            if other != target and not is_being_made:
                shutil.rmtree(other, ignore_errors=True)
    return target


def _look_for_tools() -> None:
    if importlib.util.find_spec("mypyc") is None or importlib.util.find_spec("setuptools") is None:
        raise CannotCompile("mypyc is not installed here; `make compile` does that (requirements-compile.txt)")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise CannotCompile(f"there is no C compiler {compiler} (Debian and Ubuntu: apt-get install gcc)")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise CannotCompile(f"there is no {header} (Debian and Ubuntu: apt-get install python3-dev)")


def build_extension(name: str, directory: Path) -> Path:
    """Compile the module `name` of its C file, and give where; at once where it is there already. Raises
    CannotCompile."""
    target = compiled.extension(name, directory)
    if target.is_file():
        return target
    _look_for_tools()
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    directory.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    with tempfile.TemporaryDirectory(prefix=MAKING, dir=directory) as making:
        source = Path(making, "module.c")  # As it is now: what it is called after must be what it is made of.
        source.write_bytes(compiled.c_source(name).read_bytes())
        command = build_ext(Distribution({"name": name, "ext_modules": [Extension(name, [str(source)])]}))
        command.build_lib = command.build_temp = making
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                command.ensure_finalized()
                command.run()
        except (Exception, SystemExit) as error:
            tail = "\n".join(said.getvalue().strip().splitlines()[-20:])
            raise CannotCompile(f"{type(error).__name__}: {error}\n{tail}") from error
        made = Path(making, command.get_ext_filename(name))
        with made.open("rb") as file:
            os.fsync(file.fileno())  # One that holds nothing, after a loss of power, must not have the name.
        if compiled.extension(name, directory) != target:
            raise CannotCompile(f"{compiled.c_source(name)} was changed meanwhile")
        made.rename(target)
    for other in directory.glob(f"{name}-*"):
        if other != target:
            other.unlink(missing_ok=True)
    return target


def compile_into(making: Path, wanted: Flags | None = None) -> None:
    """Into making/lib, beside a list of the modules. Laid out for requests where this machine's tools can do that, and
    else said to be not; or with the flags that are `wanted`. Raises CannotCompile."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class OnAllProcessors(build_ext):
        """The files of one extension are compiled side by side, and not one after another."""

        def build_extensions(self) -> None:
            flags = _layout(self.compiler, making, aside) if wanted is None else wanted
            for extension in self.extensions:
                extension.extra_compile_args += flags.compiler
                extension.extra_link_args += flags.linker
            alone: Callable[..., list[str]] = self.compiler.compile

            def compile_all(files: Sequence[str], *arguments: Any, **named: Any) -> list[str]:
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    made = pool.map(lambda file: alone([file], *arguments, **named), files)
                    return [one for each in made for one in each]

            self.compiler.compile = compile_all
            super().build_extensions()

    said, aside = io.StringIO(), sys.stderr
    here = Path.cwd()
    os.chdir(compiled.PROJECT)  # mypyc makes a module's name of its path
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            extensions = mypycify(
                [*OPTIONS, f"--cache-dir={making / 'cache'}", *sources()],
                opt_level=OPTIMISATION,
                debug_level="0",
                multi_file=True,
                target_dir=str(making / "c"),
            )
            command = OnAllProcessors(Distribution({"name": "conclave-compiled", "ext_modules": extensions}))
            command.build_lib = str(making / "lib")
            command.build_temp = str(making / "o")
            command.ensure_finalized()
            command.run()
    except (Exception, SystemExit) as error:
        tail = "\n".join(said.getvalue().strip().splitlines()[-20:])
        raise CannotCompile(f"{type(error).__name__}: {error}\n{tail}") from error
    finally:
        os.chdir(here)
    lib = making / "lib"
    files = {extension.name: command.get_ext_filename(extension.name) for extension in extensions}
    named = {name: (file, compiled.checksum(lib / file)) for name, file in files.items()}
    (lib / compiled.MODULES).write_text(json.dumps(named, indent=1, sort_keys=True))


def _layout(compiler: Any, making: Path, told: TextIO) -> Flags:
    """No flags where the compiler or the linker knows nothing of them: then code lies where it falls, and is as
    right."""
    from setuptools.errors import CCompilerError, ExecError, PlatformError

    flags = native_layout.write(making)
    probe = making / "probe.c"
    probe.write_text("int probed(void) { return 0; }\n")
    try:
        made = compiler.compile([str(probe)], output_dir=str(making / "probe"), extra_postargs=list(flags.compiler))
        compiler.link_shared_object(made, str(making / "probe" / "probed.so"), extra_postargs=list(flags.linker))
    except (CCompilerError, ExecError, PlatformError) as error:
        print(f"what is compiled is not laid out for requests, and some 5 % slower: {error}", file=told)
        return Flags()
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m coordinator.compiling", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--if-possible", action="store_true", help="what is missing is said, and is no failure")
    options = parser.parse_args(arguments)
    current = compiled.BUILDS / compiled.digest()
    is_there = bool(compiled.modules_of(current))
    began = time.monotonic()
    try:
        for name in EXTENSIONS:
            build_extension(name, compiled.EXTENSIONS)
        if is_there:
            print(f"compiled already: {current}")
            return 0
        print("compiling what nodes and clients run, which takes a minute or so ...", flush=True)
        made = build(compiled.BUILDS)
    except (CannotCompile, OSError) as error:
        print(f"not compiled, it is run interpreted: {error}" if options.if_possible else error, file=sys.stderr)
        return 0 if options.if_possible else 1
    print(f"compiled in {time.monotonic() - began:.0f} s: {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
