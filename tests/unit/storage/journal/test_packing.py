"""What a journal packs reads as it was, and what was damaged is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.storage.journal import packing

LARGE = bytes(range(251)) * 300  # more than the short head can count


@given(st.binary(max_size=500))
def test_bytes_come_back(content: bytes) -> None:
    assert packing.joined(packing.packed(content)) == content


def test_large_content_comes_back() -> None:
    assert packing.joined(packing.packed(LARGE)) == LARGE


@given(
    st.sampled_from((4, 8)).flatmap(
        lambda width: st.integers(1, 40).flatmap(
            lambda num: st.tuples(
                st.just(width),
                st.binary(min_size=num * width, max_size=num * width),
                st.dictionaries(st.integers(0, num * width - 1), st.integers(0, 255), max_size=9),
            )
        )
    )
)
def test_difference_stands_for_what_it_changes(
    given: tuple[int, bytes, dict[int, int]],
) -> None:
    width, base, changes = given
    content = bytes(changes.get(i, byte) for i, byte in enumerate(base))

    less = packing.difference(content, base, width=width)

    assert packing.joined(packing.packed(base) + less) == content


@given(st.text(), st.text())
def test_text_on_another_stands_for_itself(text: str, base: str) -> None:
    content, before = text.encode(), base.encode()
    leans = packing.text_on(content, before)
    pieces = packing.text_on(before, b"") + leans if before else leans

    assert packing.joined(pieces) == content


def test_pieces_follow_each_other() -> None:
    pieces = packing.packed(b"one") + packing.text_on(b" two ", b"") + packing.packed(b"three")

    assert packing.joined(pieces) == b"one two three"
    assert packing.joined(b"") == b""


@pytest.mark.parametrize(
    "whole",
    [
        packing.packed(bytes(range(200))),
        packing.packed(bytes(64)) + packing.difference(b"\1" * 64, bytes(64), width=8),
        packing.text_on(b"what was said", b""),
    ],
)
def test_each_flipped_byte_is_refused(whole: bytes) -> None:
    content = packing.joined(whole)
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        try:
            assert packing.joined(flipped) == content  # a bit that means nothing
        except ValueError:
            continue


@given(st.binary(min_size=1, max_size=99), st.data())
def test_a_piece_that_was_cut_off_is_refused(content: bytes, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from((packing.packed(content), packing.text_on(content, b""))))
    cut = data.draw(st.integers(1, len(whole) - 1))

    with pytest.raises(ValueError, match=r"\w"):
        packing.joined(whole[:cut])


def test_what_leans_on_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leans on none"):
        packing.joined(packing.difference(b"\1" * 8, bytes(8), width=8))
