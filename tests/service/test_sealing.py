"""Sealed cursors and journals (``admin_keys.md`` section 7, ``runtime.md`` section 3.4)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.application.sealing import BrokenSeal, Sealer, derive_key

SECRET = bytes(range(32))


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_seals_open_and_are_deterministic(data: bytes) -> None:
    """Equal bytes give equal texts, in each process, and the text opens to the bytes."""
    text = Sealer(SECRET, "name").seal("cursor", data)
    assert text == Sealer(SECRET, "name").seal("cursor", data)
    assert Sealer(SECRET, "name").unseal("cursor", text) == data


def test_seals_hide_what_they_hold() -> None:
    """The text does not contain the bytes, and is fit for URLs and JSON as it is."""
    text = Sealer(SECRET, "name").seal("cursor", b"position of a secret document")
    assert "secret" not in text
    assert all(character.isascii() and (character.isalnum() or character in "-_") for character in text)


@pytest.mark.parametrize(
    ("sealer", "purpose"),
    [
        (Sealer(bytes(32), "name"), "cursor"),
        (Sealer(SECRET, "other"), "cursor"),
        (Sealer(SECRET, "name"), "journal"),
    ],
)
def test_seals_belong_to_deployment_and_purpose(sealer: Sealer, purpose: str) -> None:
    """Another secret, another name or another purpose cannot open the text."""
    with pytest.raises(BrokenSeal):
        sealer.unseal(purpose, Sealer(SECRET, "name").seal("cursor", b"x"))


def test_no_altered_text_opens() -> None:
    """A text with any one character changed, cut or added is refused: also one that decodes to the same bytes."""
    sealer = Sealer(SECRET, "name")
    text = sealer.seal("cursor", b"0123456789")
    altered = [text[:-1], text + "A", text + "=", " " + text, text + "\n"]
    for position, character in enumerate(text):
        for other in "AQgw_-":
            if other != character:
                altered.append(text[:position] + other + text[position + 1 :])
    for candidate in altered:
        with pytest.raises(BrokenSeal):
            sealer.unseal("cursor", candidate)


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_garbage_is_a_broken_seal(text: str) -> None:
    """No text that a client may send fails in another way."""
    with pytest.raises(BrokenSeal):
        Sealer(SECRET, "name").unseal("cursor", text)


def test_derived_keys_differ_by_purpose() -> None:
    """Each purpose has a key of its own of 64 bytes."""
    names = ["admin key", "seal/cursor", "seal/journal"]
    assert len({derive_key(SECRET, name) for name in names}) == len(names)
    assert {len(derive_key(SECRET, name)) for name in names} == {64}
