"""What is compiled: the same modules, made native code by mypyc, for nodes and for clients to run.

A build lies in var/compiled under the digest of what it was made of: the sources of what is compiled, the interpreter
and its platform. One that does not match is never loaded: code that was changed runs as it stands, interpreted, until
it is compiled again (`make compile`, coordinator/compiling.py). So there are two programs, and what is proved of one is
to be shown of the other: tests/test_compiled.py runs the same seeds of the simulator in both, and compares
each event.

The standard library alone: this runs before anything of a node, or of a client, is imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

PROJECT: Final = Path(__file__).parents[1]
BUILDS: Final = PROJECT / "var" / "compiled"
MODULES: Final = "modules.json"
"""In each build: module to file, relative to the build, and what is in it (`checksum`). Written last."""
SOURCES: Final = (
    "channel.py",
    "client",
    "compiling.py",
    "consensus",
    "hot_functions.txt",
    "native_layout.py",
    "orders.py",
    "records.py",
    "replica",
    "seldom.py",
    "statemachine",
    "wire",
)
"""What a build depends on, in coordinator/: what is compiled, what that is compiled with, and how."""
PINNED: Final = ("requirements.txt", "requirements-compile.txt")
"""Beside it: the compiler, and the packages whose types are compiled in."""
EXTENSIONS: Final = PROJECT / "var" / "native"
"""Where modules lie that are written in C."""
VARIABLE: Final = "CONCLAVE_COMPILED"
CHOICES: Final = ("auto", "always", "never")

_logger = logging.getLogger(__name__)


class Use(NamedTuple):
    """Whether this process runs the compiled modules, and what there is to say of it."""

    compiled: bool
    note: str


_is_settled = False
"""Has this process said which it runs, before any client is imported?"""


def use_where_asked() -> None:
    """For programs that are no node: as `use`, where `CONCLAVE_COMPILED` is `always`, and else not at all."""
    if os.environ.get(VARIABLE) == "always" and not is_used():
        use()


def settle() -> None:
    """For tests, which look at the insides: the same, and a client that is imported leaves it at that."""
    global _is_settled  # noqa: PLW0603 - a choice of this process
    _is_settled = True
    use_where_asked()


def use_in_client(environment: Mapping[str, str] = os.environ, builds: Path = BUILDS) -> None:
    """For a client, which is a guest in another's program, and for the web process: as `use`, but whatever speaks
    against it ends nobody. They run interpreted then: part of what is compiled may have been imported before them."""
    if _is_settled or is_used():
        return
    try:
        if environment.get(VARIABLE) or builds.is_dir():  # It raises where one may not look.
            use(environment, builds)
    except (OSError, RuntimeError) as error:
        _logger.debug("this process runs interpreted: %s", error)
    except SystemExit as error:
        _logger.warning("this process runs interpreted: %s", error)


def is_used() -> bool:
    """Does this process run the compiled modules?"""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


class _Finder(MetaPathFinder):
    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(name)
        return spec_from_file_location(name, file) if file is not None else None


def digest(project: Path = PROJECT) -> str:
    """Of all that a build is made of, as hex. Also the name of its directory."""
    whole = hashlib.blake2b(_interpreter(), digest_size=16)
    paths = [project / "coordinator" / source for source in SOURCES] + [project / name for name in PINNED]
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            data = file.read_bytes() if file.exists() else b""
            whole.update(f"{file.relative_to(project).as_posix()}\n{len(data)}\n".encode())
            whole.update(data)
    return whole.hexdigest()


def extension(name: str, directory: Path = EXTENSIONS) -> Path:
    """Where the module `name` lies as native code, whether it was made or not: its file is called after what is in the
    C file of that name, and after the interpreter. Raises OSError where there is no such source."""
    whole = hashlib.blake2b(_interpreter(), digest_size=16)
    whole.update(c_source(name).read_bytes())
    return directory / f"{name}-{whole.hexdigest()}{sysconfig.get_config_var('EXT_SUFFIX')}"


def native(name: str) -> ModuleType | None:
    """The module `name` of C, where it was made of the source that is here, and nobody asked for no native code."""
    if os.environ.get(VARIABLE) == "never":
        return None
    try:
        file = extension(name)
        if not file.is_file():
            return None
        return load(name, file)
    except (ImportError, OSError) as error:
        _logger.warning("this process does without the native code of %s: %s", name, error)
        return None


def load(name: str, file: Path) -> ModuleType:
    """The module `name` of native code in that file. Raises ImportError."""
    spec = spec_from_file_location(name, file)
    assert spec is not None, "the name ends as an extension's does"
    assert spec.loader is not None, "so it has a loader"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def c_source(name: str) -> Path:
    return PROJECT.joinpath(*name.split(".")).with_suffix(".c")


def _interpreter() -> bytes:
    return f"{sys.version}\n{sysconfig.get_platform()}\n{sysconfig.get_config_var('SOABI')}\n".encode()


def _is_first_interpreter() -> bool:
    """A server of several programs, as mod_wsgi, has interpreters in one process. What mypyc makes keeps its objects in
    variables of the process: imported by a second one, it would take them from the first."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # The latter below Python 3.13.
        try:
            interpreters = import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True


def modules_of(build: Path) -> dict[str, str]:
    """Module to file of a build, as absolute paths; empty where there is none, or where it is not whole: a machine that
    lost its power while it was written may have files that hold nothing."""
    try:
        named = json.loads((build / MODULES).read_bytes())
        whole = all(checksum(build / file) == sum_ for file, sum_ in named.values())
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {name: str(build / file) for name, (file, _) in named.items()} if whole else {}


def checksum(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def use(environment: Mapping[str, str] = os.environ, builds: Path = BUILDS) -> Use:
    """From here on, import the compiled modules where there are any of these very sources.

    To be called before any of them is imported. `CONCLAVE_COMPILED` set to `never` leaves them alone, `always` asks
    for them; SystemExit where they are not there then, or where it is set to something else."""
    choice = environment.get(VARIABLE) or "auto"
    if choice not in CHOICES:
        raise SystemExit(f"{VARIABLE}: expected one of {', '.join(CHOICES)}; got {choice!r}")
    if choice == "never":
        return Use(compiled=False, note=f"interpreted, as {VARIABLE}=never asks")
    if not _is_first_interpreter():
        trouble = "native code of mypyc serves one interpreter of a process, and this is not the first"
        if choice == "always":
            raise SystemExit(f"{VARIABLE}: {trouble}")
        return Use(compiled=False, note=f"interpreted: {trouble}")
    build = builds / digest()
    files = modules_of(build)
    if not files:
        missing = f"there is no build of these sources in {builds}; `make compile` makes one"
        if choice == "always":
            raise SystemExit(f"{VARIABLE}: {missing}")
        return Use(compiled=False, note=f"interpreted: {missing}")
    early = sorted(files.keys() & sys.modules.keys())
    if early:
        raise RuntimeError(f"imported before the compiled modules could be: {', '.join(early)}")
    finder = _Finder(files)
    sys.meta_path.insert(0, finder)
    try:
        for library in [name for name in files if "." not in name]:  # All of them lie in it.
            import_module(library)
    except ImportError as error:  # As from a file system that nothing is run from.
        sys.meta_path.remove(finder)
        trouble = f"the build in {build} can not be loaded: {error}"
        if choice == "always":
            raise SystemExit(f"{VARIABLE}: {trouble}") from None
        _logger.warning("this process runs interpreted: %s", trouble)
        return Use(compiled=False, note=f"interpreted: {trouble}")
    return Use(compiled=True, note=f"compiled: {build}")
