"""Files of both formats: what is read, and what is refused with the file and the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.linearizability import Operation, jepsen, porcupine_kv, source
from tests.linearizability.source import SourceError, numbered_lines


def read_register(text: str) -> tuple[Operation, ...]:
    return jepsen.parse(enumerate(text.splitlines(), start=1), "a.log")


def read_store(text: str) -> tuple[Operation, ...]:
    return porcupine_kv.parse(enumerate(text.splitlines(), start=1), "a.txt")


def line(process: object, kind: str, function: str, value: str, tab: str = "\t") -> str:
    return f"INFO  jepsen.util - {process}{tab}:{kind}{tab}:{function}{tab}{value}"


def event(process: object, kind: str, function: str, key: str, value: str) -> str:
    return f'{{:process {process}, :type :{kind}, :f :{function}, :key "{key}", :value {value}}}'


class TestRegister:
    @pytest.mark.parametrize("tab", ["\t", " ", "    "])
    def test_fields_may_be_apart_by_tabs_or_spaces(self, tab: str) -> None:
        (operation,) = read_register(line(3, "invoke", "cas", "[1 2]", tab) + "\n" + line(3, "ok", "cas", "[1 2]", tab))
        assert (operation.process, operation.action, operation.argument, operation.result) == (3, "cas", (1, 2), True)
        assert (operation.invoked, operation.returned, operation.line) == (0, 1, 1)

    def test_a_compare_that_did_not_match_returned_so(self) -> None:
        (operation,) = read_register(line(0, "invoke", "cas", "[1 2]") + "\n" + line(0, "fail", "cas", "[1 2]"))
        assert operation.result is False

    def test_a_read_gives_a_number_or_nil(self) -> None:
        text = "\n".join(line(0, kind, "read", value) for kind, value in [("invoke", "nil"), ("ok", "nil")])
        assert read_register(text)[0].result is None
        text = "\n".join(line(0, kind, "read", value) for kind, value in [("invoke", "nil"), ("ok", "-4")])
        assert read_register(text)[0].result == -4

    @pytest.mark.parametrize("kind", ["fail", "info"])
    def test_a_read_that_timed_out_constrains_nothing(self, kind: str) -> None:
        operations = read_register(line(0, "invoke", "read", "nil") + "\n" + line(0, kind, "read", ":timed-out"))
        assert all(operation.outcome_is_unknown for operation in operations)

    @pytest.mark.parametrize(("function", "value"), [("write", "1"), ("cas", "[1 2]")])
    def test_what_timed_out_or_never_returned_has_an_unknown_outcome(self, function: str, value: str) -> None:
        invocation = line(0, "invoke", function, value)
        for text in (invocation, invocation + "\n" + line(0, "info", function, ":timed-out")):
            (operation,) = read_register(text)
            assert operation.outcome_is_unknown

    @pytest.mark.parametrize(("function", "value"), [("write", "1"), ("cas", "[1 2]"), ("cas", "[nil 2]")])
    @pytest.mark.parametrize("reason", ["", ":timed-out", '[:timed-out "no [answer]"]', "Read timed out", "nil"])
    def test_an_unknown_outcome_may_carry_its_error_and_its_process_goes_on(
        self, function: str, value: str, reason: str
    ) -> None:
        for ending in (reason, f"{value}\t{reason}"):
            events = [line(0, "invoke", function, value), line(0, "info", function, ending).rstrip()]
            first, second = read_register(
                "\n".join([*events, line(0, "invoke", "write", "5"), line(0, "ok", "write", "5")])
            )
            assert first.outcome_is_unknown
            assert second.result is True

    @pytest.mark.parametrize(("function", "value"), [("write", "1"), ("cas", "[1 2]")])
    def test_what_took_effect_repeats_its_values_or_has_none(self, function: str, value: str) -> None:
        for returned in (value, "nil"):
            (operation,) = read_register(line(0, "invoke", function, value) + "\n" + line(0, "ok", function, returned))
            assert operation.result is True

    @pytest.mark.parametrize("ending", ["", ":refused", "[1 2]\t:refused", "nil", "nil\t:refused", "the [1 2] is gone"])
    def test_a_compare_that_failed_for_a_reason_says_nothing_of_the_register(self, ending: str) -> None:
        assert read_register(line(0, "invoke", "cas", "[1 2]") + "\n" + line(0, "fail", "cas", ending).rstrip()) == ()

    @pytest.mark.parametrize(("function", "value"), [("write", "1"), ("cas", "[1 2]")])
    def test_what_failed_for_a_reason_did_not_happen(self, function: str, value: str) -> None:
        assert read_register(line(0, "invoke", function, value) + "\n" + line(0, "fail", function, ":refused")) == ()

    def test_a_process_that_goes_on_without_a_return_has_lost_its_operation(self) -> None:
        first, second = read_register(line(0, "invoke", "write", "1") + "\n" + line(0, "invoke", "write", "2"))
        assert first.outcome_is_unknown
        assert second.argument == 2

    def test_blank_lines_and_the_nemesis_are_skipped(self) -> None:
        text = "\n".join(
            ["", "  ", line(":nemesis", "info", "start-partition", '"cut off"'), line(0, "invoke", "read", "nil")]
        )
        assert len(read_register(text)) == 1

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("hello", "expected 'INFO  jepsen.util - PROCESS"),
            ("INFO  jepsen.util - 0\t:invoke", "expected 'INFO  jepsen.util - PROCESS"),
            ("INFO  jeps", "expected 'INFO  jepsen.util - PROCESS"),
            ("INFO  jepsen.util - 0\t:inv", "expected 'INFO  jepsen.util - PROCESS"),
            (event(0, "invoke", "get", "1", "nil"), "expected 'INFO  jepsen.util - PROCESS"),
            (line("x", "invoke", "read", "nil"), "expected a process number, got 'x'"),
            (line("٣", "invoke", "read", "nil"), "expected a process number"),
            (line(0, "begin", "read", "nil"), "expected :invoke, :ok, :fail or :info, got :begin"),
            (line(0, "invoke", "delete", "nil"), "expected :read, :write or :cas, got :delete"),
            (line(0, "invoke", "write", "one"), "expected an integer or nil for a write, got 'one'"),
            (line(0, "invoke", "write", "1 2"), "expected an integer or nil for a write, got '1 2'"),
            (line(0, "invoke", "write", "9" * 5000), "expected an integer or nil for a write, got '999"),
            (line(0, "invoke", "read", "3"), "expected a read to be invoked with nil, got '3'"),
            (line(0, "invoke", "cas", "1 2"), r"expected \[OLD NEW\] for a cas, got '1 2'"),
            (line(0, "invoke", "cas", "[1 2 3]"), r"expected \[OLD NEW\] for a cas"),
            (line(0, "ok", "read", "1"), "process 0 returned, but has no operation open"),
        ],
    )
    def test_a_bad_line_is_named(self, text: str, problem: str) -> None:
        with pytest.raises(SourceError, match=problem) as caught:
            read_register(line(1, "invoke", "write", "1") + "\n" + text)
        assert str(caught.value).startswith("a.log, line 2: ")
        assert caught.value.line == 2
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        ("first", "second", "problem"),
        [
            (("write", "1"), ("ok", "read", "1"), "returned from a read, but what it has open is the write of line 1"),
            (("write", "1"), ("ok", "write", "2"), "with other values than it invoked it with in line 1"),
            (("cas", "[1 2]"), ("fail", "cas", "[2 1]"), "with other values than it invoked it with in line 1"),
            (("cas", "[1 2]"), ("ok", "cas", ":timed-out"), r"expected \[OLD NEW\] for a cas"),
            (
                ("cas", "[1 2]"),
                ("info", "cas", "[2 1]\t:timed-out"),
                "with other values than it invoked it with in line 1",
            ),
            (("write", "1"), ("fail", "write", "2\t:refused"), "with other values than it invoked it with in line 1"),
            (("write", "1"), ("ok", "write", "1\t:timed-out"), "expected an integer or nil for a write"),
            (("cas", "[1 2]"), ("ok", "cas", "[1 "), r"expected \[OLD NEW\] for a cas"),
            (("read", "nil"), ("ok", "read", ":timed-out"), "expected an integer or nil for a read"),
        ],
    )
    def test_a_return_that_does_not_fit_its_invocation_is_named(
        self, first: tuple[str, str], second: tuple[str, str, str], problem: str
    ) -> None:
        with pytest.raises(SourceError, match=problem):
            read_register(line(0, "invoke", *first) + "\n" + line(0, *second))


class TestStore:
    def test_the_usual_line(self) -> None:
        put, get = read_store(
            "\n".join(
                [
                    event(0, "invoke", "put", "k", '"a b"'),
                    event(1, "invoke", "get", "k", "nil"),
                    event(0, "ok", "put", "k", '"a b"'),
                    event(1, "ok", "get", "k", '"a b"'),
                ]
            )
        )
        assert (put.process, put.action, put.key, put.argument, put.result) == (0, "put", "k", "a b", True)
        assert (get.action, get.argument, get.result, get.invoked, get.returned) == ("get", None, "a b", 1, 3)

    def test_fields_in_any_order_and_others_beside_them(self) -> None:
        (operation,) = read_store('{:value "v", :f :put :time 12 :index 3, :key "k", :process 7, :type :invoke}')
        assert (operation.process, operation.key, operation.argument) == (7, "k", "v")

    def test_escapes_in_strings(self) -> None:
        (operation,) = read_store(r'{:process 0, :type :invoke, :f :put, :key "a\"b", :value "x\\y\n\tä"}')
        assert (operation.key, operation.argument) == ('a"b', "x\\y\n\tä")

    def test_what_was_lost_or_never_returned_has_an_unknown_outcome(self) -> None:
        invocation = event(0, "invoke", "append", "k", '"a"')
        for text in (invocation, invocation + "\n" + event(0, "info", "append", "k", '"a"')):
            assert read_store(text)[0].outcome_is_unknown

    @pytest.mark.parametrize("value", ["nil", '""', '"a"'])
    @pytest.mark.parametrize("function", ["put", "append"])
    def test_what_changed_something_repeats_its_value_or_has_none(self, function: str, value: str) -> None:
        text = event(0, "invoke", function, "k", '"a"') + "\n" + event(0, "ok", function, "k", value)
        (operation,) = read_store(text)
        assert (operation.argument, operation.result) == ("a", True)

    @pytest.mark.parametrize("asked", ["nil", '""'])
    @pytest.mark.parametrize("found", ["nil", '""'])
    def test_a_get_asks_with_nothing_and_may_find_nothing(self, asked: str, found: str) -> None:
        (operation,) = read_store(event(0, "invoke", "get", "k", asked) + "\n" + event(0, "ok", "get", "k", found))
        assert (operation.argument, operation.result) == (None, "")

    def test_a_key_may_be_an_integer(self) -> None:
        events = [event(0, kind, "put", "-7", '"a"').replace('"-7"', "-7") for kind in ("invoke", "ok")]
        (operation,) = read_store("\n".join(events))
        assert (operation.key, operation.result) == ("-7", True)

    def test_what_the_nemesis_did_is_read_over(self) -> None:
        nemesis = '{:process :nemesis, :type :info, :f :start, :value {"n1" #{"n2" ["n3"]}}, :time 12}'
        assert len(read_store(nemesis + "\n" + event(0, "invoke", "get", "k", "nil"))) == 1

    def test_an_unknown_outcome_may_carry_its_error_and_its_process_goes_on(self) -> None:
        error = ':error [:timeout "no } answer" {:after #duration "5 s", :tries (1 2)}]'
        lost = '{:process 0, :type :info, :f :put, :key "k", :value :timed-out, ' + error + "}"
        again = event(0, "invoke", "put", "k", '"b"') + "\n" + event(0, "ok", "put", "k", '"b"')
        first, second = read_store(event(0, "invoke", "put", "k", '"a"') + "\n" + lost + "\n" + again)
        assert first.outcome_is_unknown
        assert (second.argument, second.result) == ("b", True)

    def test_what_failed_did_not_happen(self) -> None:
        assert read_store(event(0, "invoke", "put", "k", '"a"') + "\n" + event(0, "fail", "put", "k", '"a"')) == ()

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("hello", "expected a map"),
            (line(0, "invoke", "read", "nil"), "expected a map"),
            ("{:process 0, :type :invoke, :f :get, :key ", "expected a map"),
            ('{:process 0, :type :invoke, :f :get, :key "k}', "expected ':name value' at column 38"),
            ("{:process 0, :type :invoke, :f :get}", "missing :key, :value"),
            (
                '{:process 0, :process 1, :type :invoke, :f :get, :key "k", :value nil}',
                "the field :process comes twice",
            ),
            (
                '{:process 0, :type :invoke, :f :get, :key {"a" 1}, :value nil}',
                "expected a string or an integer as :key",
            ),
            ('{:process 0, :type :invoke, :f :get, :error ["a" (1}, :key "k", :value nil}', "column 38, got ':error"),
            ('{:process 0, :type :invoke, :f :get, :error ), :key "k", :value nil}', "column 38, got ':error"),
            ('{:process 0, :type :invoke, :f :get, :error [, :key "k", :value nil}', "column 38, got ':error"),
            ("{:process 0, :type :invoke, :f :get, :key 3.5, :value nil}", "expected a string or an integer as :key"),
            ("{:process 0, :type :invoke, :f :get, :key 03, :value nil}", "expected a string or an integer as :key"),
            (event(0, "invoke", "get", "9", "nil").replace('"9"', "9"), "the key 9 is written as an integer and as a"),
            ('{:process 0, :type :ok, :f :put, :key "9", :val', "expected a map"),
            ('{:process 0, :type :ok, :f :put, :key "9", :va}', "expected ':name value'"),
            ("{}", "missing :process, :type, :f, :key, :value"),
            (event("x", "invoke", "get", "k", "nil"), "expected a number as :process, got x"),
            (event(0, "begin", "get", "k", "nil"), "expected :invoke, :ok, :info or :fail as :type, got :begin"),
            (event(0, "invoke", "delete", "k", "nil"), "expected :get, :put or :append as :f, got :delete"),
            (event(0, "invoke", "get", "k", '"v"'), "expected nil as :value of the invocation of a get"),
            (event(0, "invoke", "put", "k", "nil"), "expected a string as :value, got nil"),
            (r'{:process 0, :type :invoke, :f :put, :key "k", :value "\q"}', r"unknown escape \\q in a string"),
            (event(0, "ok", "get", "k", '"v"'), "process 0 returned, but has no operation open"),
        ],
    )
    def test_a_bad_line_is_named(self, text: str, problem: str) -> None:
        with pytest.raises(SourceError, match=problem) as caught:
            read_store(event(1, "invoke", "put", "9", '"a"') + "\n" + text)
        assert str(caught.value).startswith("a.txt, line 2: ")
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        ("second", "problem"),
        [
            (event(0, "ok", "get", "k", '"a"'), "returned from a get of key 'k', but what it has open is the put"),
            (event(0, "ok", "put", "other", '"a"'), "returned from a put of key 'other'"),
            (event(0, "ok", "put", "k", '"b"'), "with another value than it invoked it with in line 1"),
        ],
    )
    def test_a_return_that_does_not_fit_its_invocation_is_named(self, second: str, problem: str) -> None:
        with pytest.raises(SourceError, match=problem):
            read_store(event(0, "invoke", "put", "k", '"a"') + "\n" + second)


class TestFiles:
    def refused(self, name: str) -> str:
        with pytest.raises(SourceError) as caught:
            list(numbered_lines(name))
        return str(caught.value)

    def test_lines_are_numbered_and_have_no_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo")
        assert list(numbered_lines(str(path))) == [(1, "one"), (2, ""), (3, "two")]

    def test_what_can_not_be_opened_is_named(self, tmp_path: Path) -> None:
        assert self.refused(str(tmp_path / "none")) == f"{tmp_path / 'none'}: No such file or directory"
        assert self.refused(str(tmp_path)) == f"{tmp_path}: Is a directory"
        assert "null" in self.refused("a\0b")

    def test_what_is_not_text_is_named_with_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"one\n\xff\n")
        assert self.refused(str(path)) == f"{path}, line 2: not UTF-8 text (invalid start byte at byte 0)"

    def test_a_file_too_long_is_refused_before_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(source, "FILE_BYTES_MAX", 8)
        path = tmp_path / "a"
        path.write_bytes(b"x" * 9)
        assert self.refused(str(path)) == f"{path}: longer than 8 bytes"


@pytest.mark.parametrize("read", [read_register, read_store])
def test_an_empty_file_is_an_empty_history(read: Callable[[str], tuple[Operation, ...]]) -> None:
    assert read("") == ()
