"""Named tuples that are made in C, which are to be the tuples that Python makes."""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import compiled, records
from tests.native import native_module

NAME = "coordinator._records"


class Plain(NamedTuple):
    one: int
    two: str
    three: Any = None
    four: Any = ()


class Quick(NamedTuple):
    one: int
    two: str
    three: Any = None
    four: Any = ()

    def both(self) -> str:
        return f"{self.one}{self.two}"


class Built(Quick):
    pass


class Wide(NamedTuple):
    f0: int
    f1: int
    f2: int
    f3: int
    f4: int
    f5: int
    f6: int
    f7: int
    f8: int
    f9: int
    f10: int
    f11: int
    f12: int


class Nothing(NamedTuple):
    pass


class FieldsOnly(tuple[int, ...]):
    __slots__ = ()
    _fields = ("one",)

    def __new__(cls, one: int) -> Self:
        return super().__new__(cls, (one, one))


@pytest.fixture(scope="module", autouse=True)
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: Any = native_module(NAME, tmp_path_factory.mktemp("native"))
    assert made.quicken(Quick) is (sys.version_info < (3, 14))
    return made


def outcome(kind: Callable[..., Any], positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        made = kind(*positional, **named)
    except TypeError as error:
        return str(error).replace("Quick", "Plain")
    assert type(made) is kind
    return tuple(made), made._asdict()


values = st.one_of(st.integers(), st.text(), st.none(), st.lists(st.integers()))


@given(st.lists(values, max_size=6), st.dictionaries(st.sampled_from([*Plain._fields, "five", "self"]), values))
def test_whatever_is_handed_in_comes_out_as_python_has_it(positional, named):
    assert outcome(Quick, tuple(positional), named) == outcome(Plain, tuple(positional), named)


@pytest.mark.parametrize(
    "make",
    [
        lambda kind: kind(1, "2", 3, 4),
        lambda kind: kind(1, "2", three=3, four=4),
        lambda kind: kind(1, "2", four=4, three=3),
        lambda kind: kind(four=4, three=3, two="2", one=1),
        lambda kind: kind(**{str(name, "ascii"): 1 for name in (b"one", b"two", b"three", b"four")}),
        lambda kind: kind(1, "2"),
        lambda kind: kind(1, "2", four=4),
        lambda kind: kind._make([1, "2", 3, 4]),
        lambda kind: kind(1, "2", 3, 4)._replace(two="3"),
        lambda kind: kind.__new__(kind, 1, "2", 3),
    ],
)
def test_each_way_to_make_one_makes_the_same(make):
    assert tuple(make(Quick)) == tuple(make(Plain))
    assert type(make(Quick)) is Quick


def test_it_is_a_named_tuple_as_ever():
    one: Any = Quick(1, "2", [], {})
    assert one == (1, "2", [], {})
    assert repr(one) == "Quick(one=1, two='2', three=[], four={})"
    assert one.both() == "12"
    assert hash(Quick(1, "2", 3, 4)) == hash((1, "2", 3, 4))
    assert pickle.loads(pickle.dumps(one)) == one
    assert gc.is_tracked(one)
    assert not hasattr(one, "__dict__")


def test_it_holds_its_fields_and_lets_go_of_them():
    held = object()
    before, of_class = sys.getrefcount(held), sys.getrefcount(Quick)
    made = [Quick(1, "2", held, held) for _ in range(100)]
    made += [Quick(1, "2", three=held, four=held) for _ in range(100)]
    assert sys.getrefcount(held) == before + 400
    del made
    assert sys.getrefcount(held) == before
    assert sys.getrefcount(Quick) == of_class
    cycle: list[Any] = []
    cycle.append(Quick(1, "2", cycle, held))
    del cycle
    gc.collect()
    assert sys.getrefcount(held) == before


def test_what_is_built_upon_it_is_made_by_python():
    one = Built(1, "2")
    assert type(one) is Built
    assert one == (1, "2", None, ())
    assert hasattr(one, "__dict__")


@pytest.mark.parametrize("kind", [Built, FieldsOnly, tuple, int, type])
def test_another_class_is_refused(native, kind):
    with pytest.raises(TypeError, match="expected a class of NamedTuple, got <class"):
        native.quicken(kind)
    with pytest.raises(TypeError, match="expected a class, got 5"):
        native.quicken(5)


def test_one_with_very_many_fields_or_none_stays_as_it_is(native):
    assert not native.quicken(Wide)
    assert Wide(*range(13)) == tuple(range(13))
    assert not native.quicken(Nothing)
    assert Nothing() == ()


@pytest.fixture
def modules(native: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    made = {name: ModuleType(name) for name in ("quick_ones", "quick_ones.inside", "quick_ones_of_others")}
    for name, module in made.items():
        exec("from typing import NamedTuple\nclass One(NamedTuple):\n    one: int\nLENT = 5", vars(module))
        vars(module)["Lent"] = Plain
        vars(module)["One"].__module__ = name
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_those_of_a_package_are_and_no_others(native, monkeypatch, modules):
    quickened: list[type] = []

    class Noting:
        @staticmethod
        def quicken(kind: type) -> bool:
            quickened.append(kind)
            return bool(native.quicken(kind))

    monkeypatch.setattr(compiled, "native", lambda name: Noting if name == NAME else None)
    assert records.quicken("quick_ones") == 2
    assert quickened == [vars(modules[name])["One"] for name in ("quick_ones", "quick_ones.inside")]
    assert all(kind(5) == (5,) for kind in quickened)
    monkeypatch.setattr(compiled, "native", lambda _name: None)
    assert records.quicken("quick_ones") == 0, "there is no native code"
