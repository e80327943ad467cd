"""Bytes in parts are read as the bytes that they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.consensus.parts import Parts


@given(st.lists(st.binary(max_size=6), max_size=8), st.data())
def test_every_slice_is_that_of_the_bytes(parts, data):
    whole = b"".join(parts)
    read = Parts(parts)
    start = data.draw(st.integers(-3, len(whole) + 3))
    stop = data.draw(st.integers(-3, len(whole) + 3))
    assert read[start:stop] == whole[start:stop]
    assert (len(read), bytes(read), bool(read)) == (len(whole), whole, bool(whole))
    assert read == whole
    assert read == Parts([whole])


def test_parts_differ_by_what_they_hold_and_are_told_apart_from_other_things():
    assert Parts([b"ab", b"c"]) == Parts([b"a", b"bc"])
    assert Parts([b"ab"]) != Parts([b"abc"])
    assert Parts([b"ab"]) != b"ac"
    assert Parts([b"ab"]) != "ab"
    assert repr(Parts([b"ab", b"", b"c"])) == "Parts(3 bytes in 2)"
    with pytest.raises(AssertionError, match="step"):
        Parts([b"ab"])[::2]


def test_parts_are_given_as_they_came():
    assert Parts([b"ab", b"", b"c"]).parts() == [b"ab", b"c"]
