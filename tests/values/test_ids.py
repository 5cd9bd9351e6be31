"""Document ids: text, checks, and the published vectors (``runtime.md`` section 5)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.values.ids import InvalidId, decode_id, encode_id

ZEROS = "00" * 16
ONES = "ff" * 16
COUNTING = bytes(range(16)).hex()

VECTORS = [
    (1017, "fb198371cb09d3e19bf923516be973c1", "z43zp6c3e75gkmz1kfwj6mbbx5sw281h"),
    (1, ZEROS, "0400000000000000000000000000248"),
    (127, ONES, "fzzzzzzzzzzzzzzzzzzzzzzzzzzpzsr"),
    (128, ZEROS, "g00g000000000000000000000000108h"),
    (10001, COUNTING, "j57000820c20a1g7104gm2rc1m70ynr8"),
    (10001, ZEROS, "j5700000000000000000000000001qv0"),
    (16384, COUNTING, "g2002001081g81860w40j2gb1g6gw3vs74"),
    (2097152, COUNTING, "g2080080041061050r3gg28a1c60t3gfz4wg"),
    (4294967295, ONES, "zzzzzzrfzzzzzzzzzzzzzzzzzzzzzzzzzzxjj"),
    (540, COUNTING, "kg2000820c20a1g7104gm2rc1m70y674"),
    (539, COUNTING, "kc2000820c20a1g7104gm2rc1m70y5yj"),
]


@pytest.mark.parametrize(("table", "internal", "text"), VECTORS)
def test_vectors(table: int, internal: str, text: str) -> None:
    """The published ids encode and decode exactly."""
    assert encode_id(table, bytes.fromhex(internal)) == text
    assert decode_id(text) == (table, bytes.fromhex(internal))


@pytest.mark.parametrize(
    "text",
    ["sssswsgggggggggsgcsssfafffsffks", "mz1xn7tymdnktmmzqy5xxhn7tjs2nkkfmtjjr", *(v[2].upper() for v in VECTORS[:1])],
)
def test_published_rejects(text: str) -> None:
    """Loose spellings that other decoders accept are refused."""
    with pytest.raises(InvalidId, match="Unable to decode ID: "):
        decode_id(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid ID length 0"),
        ("a" * 30, "Invalid ID length 30"),
        ("a" * 38, "Invalid ID length 38"),
        ("u" * 31, "ID wasn't valid base32"),
        ("_" * 31, "ID wasn't valid base32"),
        ("-" + "0" * 30, "ID wasn't valid base32"),
        (" " + "0" * 30, "ID wasn't valid base32"),
        ("0_0" + "0" * 28, "ID wasn't valid base32"),
        ("é" * 31, "ID wasn't valid base32"),
        ("世" * 31, "ID wasn't valid base32"),
        ("0" * 31, "Invalid table number"),
        ("g000000000000000000000000000000", "Invalid table number"),
        ("zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "Invalid table number"),
        ("j5700000000000000000000000001qv1", "Invalid ID version 256 (expected 0)"),
        ("0400000000000000000000000000249", "Invalid ID length 31"),
    ],
)
def test_reject_texts(text: str, message: str) -> None:
    """Checks run in the documented order, each with its text."""
    with pytest.raises(InvalidId) as caught:
        decode_id(text)
    assert caught.value.message == f"Unable to decode ID: {message}"


@settings(max_examples=200)
@given(st.integers(1, 2**32 - 1), st.binary(min_size=16, max_size=16))
def test_round_trip(table: int, internal: bytes) -> None:
    """Every id decodes to what it was made from, and has a legal length."""
    text = encode_id(table, internal)
    assert 31 <= len(text) <= 37
    assert decode_id(text) == (table, internal)


@settings(max_examples=300)
@given(
    st.text(alphabet="0123456789abcdefghjkmnpqrstvwxyz", min_size=31, max_size=37),
    st.integers(1, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
    st.data(),
)
def test_only_one_spelling(noise: str, table: int, internal: bytes, data: st.DataObject) -> None:
    """Whatever decodes re-encodes to the same text."""
    good = encode_id(table, internal)
    position = data.draw(st.integers(0, len(good) - 1))
    for text in (noise, good + noise[0], good[:-1], good[:position] + noise[0] + good[position + 1 :]):
        try:
            decoded = decode_id(text)
        except InvalidId:
            continue
        assert encode_id(*decoded) == text


def test_encode_range() -> None:
    """Table number zero and short internal ids are refused."""
    for table, size in ((0, 16), (2**32, 16), (1, 15)):
        with pytest.raises(ValueError, match="not a document id"):
            encode_id(table, bytes(size))
