"""Admin keys, acting users, operations (``admin_keys.md`` sections 2, 4, 5 and 7)."""

from __future__ import annotations

import hmac
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.application import keys as keys_module
from convex_backend.application.keys import (
    Keys,
    acting_identity,
    check_instance_name,
    check_literal_key,
    parse_secret,
    split_acting_user,
)
from convex_backend.application.operations import (
    OPERATIONS,
    READ_ONLY_OPERATIONS,
    allowed_operations,
    check_operation,
)
from convex_backend.application.types import ANONYMOUS, SYSTEM, Identity
from convex_backend.errors import BadRequest, Forbidden, Unauthenticated

SECRET = bytes(range(32))


def make_keys(name: str = "happy-otter", secret: bytes = SECRET, literal: str | None = None) -> Keys:
    """Keys whose random bytes are all 7 and whose clock stands at 2026-11-24."""
    return Keys(name, secret, lambda size: b"\x07" * size, lambda: 1795510800.9, literal)


def refused(keys: Keys, key: str) -> bool:
    """Whether *key* is refused, with the one text that the CLI knows."""
    with pytest.raises(Unauthenticated) as caught:
        keys.check_admin(key)
    assert caught.value.code == "BadAdminKey"
    assert caught.value.message == "The provided admin key was invalid for this instance"
    return True


def test_issued_key_has_the_published_shape() -> None:
    """A key is the name, a bar and lower-case hex: version, flags, time, random bytes and a tag of 32 bytes."""
    name, text = make_keys().issue().split("|")
    raw = bytes.fromhex(text)
    assert name == "happy-otter"
    assert text == text.lower()
    assert raw[:2] == b"\x01\x00"
    assert int.from_bytes(raw[2:10], "big") == 1795510800
    assert raw[10:26] == b"\x07" * 16
    assert len(raw) == 58


@pytest.mark.parametrize(
    "form",
    [
        "{name}|{text}",
        "prod:{name}|{text}",
        "dev:{name}|{text}",
        "custom:{name}|{text}",
        "{text}",
        "preview:team:project|{text}",
        "project:team:project|{text}",
        "{name}|{upper}",
    ],
)
def test_every_form_of_a_key_is_accepted(form: str) -> None:
    """A deployment type before the name, a key without a name, and cloud forms that name no instance are all the same key."""
    name, text = make_keys().issue().split("|")
    assert make_keys().check_admin(form.format(name=name, text=text, upper=text.upper())) == Identity("admin")


@pytest.mark.parametrize(
    "form",
    [
        "",
        "|",
        "happy-otter",
        "happy-otter|",
        "other|{text}",
        "prod:other|{text}",
        "|{text}",
        "happy-otter:prod|{text}",
        "happy-otter|happy-otter|{text}",
        "happy-otter|{text}00",
        "happy-otter|{short}",
        "happy-otter|{text}:e30=",
        " happy-otter|{text}",
        "happy-otter| {text}",
        "happy-otter|{text}\n",
        "happy-otter|\u0660{text}",
        "\ud800|{text}",
        "x" * 100_000,
    ],
)
def test_other_texts_are_refused(form: str) -> None:
    """Wrong names, cut, longer or decorated keys and plain garbage give one and the same answer."""
    _, text = make_keys().issue().split("|")
    assert refused(make_keys(literal="literal"), form.replace("{text}", text).replace("{short}", text[:-2]))


def test_changing_any_bit_breaks_a_key() -> None:
    """A key with any one bit flipped is refused: version, flags, time, random part and tag alike."""
    name, text = make_keys().issue().split("|")
    raw = bytes.fromhex(text)
    for position in range(len(raw) * 8):
        altered = bytearray(raw)
        altered[position // 8] ^= 1 << position % 8
        assert refused(make_keys(), f"{name}|{altered.hex()}")


def test_a_key_belongs_to_one_deployment() -> None:
    """Neither another secret nor another name accepts the key, not even in the form that carries no name."""
    key = make_keys().issue()
    text = key.split("|")[1]
    assert refused(make_keys(secret=bytes(32)), key)
    assert refused(make_keys(name="other"), f"other|{text}")
    assert refused(make_keys(name="other"), text)


def test_a_read_only_key_is_known_as_such() -> None:
    """The read-only flag survives in the identity, and cannot be removed from the key."""
    key = make_keys().issue(read_only=True)
    assert make_keys().check_admin(key) == Identity("admin", read_only=True)
    assert refused(make_keys(), key.replace("|0101", "|0100"))


@pytest.mark.parametrize(
    ("literal", "given"),
    [
        ("plain secret", "plain secret"),
        ("happy-otter|hunter2", "happy-otter|hunter2"),
        ("happy-otter|hunter2", "prod:happy-otter|hunter2"),
        ("prod:happy-otter|hunter2", "prod:happy-otter|hunter2"),
        ("a|b|c", "a|b|c"),
    ],
)
def test_the_literal_key_is_accepted_beside_sealed_ones(literal: str, given: str) -> None:
    """The operator's own key is an admin key, with or without a deployment type, and sealed keys go on working."""
    keys = make_keys(literal=literal)
    assert keys.check_admin(given) == Identity("admin")
    assert keys.check_admin(keys.issue()) == Identity("admin")


@pytest.mark.parametrize(
    "given", ["", "hunter2", "happy-otter|hunter", "happy-otter|hunter22", "other|hunter2", "preview:a:b|hunter2"]
)
def test_only_the_whole_literal_key_is_accepted(given: str) -> None:
    """Parts, longer texts and other names are not the literal key."""
    assert refused(make_keys(literal="happy-otter|hunter2"), given)


def test_secrets_are_compared_in_constant_time() -> None:
    """Tag and literal key go through ``hmac.compare_digest``, whichever of the two matches."""
    keys = make_keys(literal="x|literal")
    for key in (keys.issue(), "x|literal", "happy-otter|" + "00" * 58):
        with mock.patch.object(keys_module.hmac, "compare_digest", wraps=hmac.compare_digest) as compare:
            try:
                keys.check_admin(key)
            except Unauthenticated:
                assert key.endswith("00")
        compared = [call.args[1] for call in compare.call_args_list]
        assert b"x|literal" in compared
        if key != "x|literal":
            assert any(len(value) == 32 for value in compared)


def test_nothing_secret_is_in_a_repr() -> None:
    """A key's parts do not reach a log through ``repr``."""
    text = repr(make_keys(literal="top-secret"))
    assert "top-secret" not in text
    assert repr(SECRET) not in text


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_no_text_makes_the_check_fail_in_another_way(text: str) -> None:
    """Whatever a client sends as a key, the answer is ``BadAdminKey``."""
    assert refused(make_keys(literal="happy-otter|\x7e"), text)


@pytest.mark.parametrize(
    ("credentials", "key", "acting"),
    [
        ("name|00ff", "name|00ff", None),
        ("name|00ff:e30=", "name|00ff", "e30="),
        ("prod:name|00ff:e30=", "prod:name|00ff", "e30="),
        ("prod:name|00ff", "prod:name|00ff", None),
        ("preview:a:b|00ff:e30=", "preview:a:b|00ff", "e30="),
        ("00ff:e30=", "00ff", "e30="),
        ("00ff", "00ff", None),
        ("name|00ff:", "name|00ff", ""),
        ("name|00ff:a:b", "name|00ff", "a:b"),
    ],
)
def test_the_acting_user_is_split_at_the_first_colon_of_the_right_part(
    credentials: str, key: str, acting: str | None
) -> None:
    """Colons of a deployment type belong to the key, the first one after the bar begins the acting user."""
    assert split_acting_user(credentials) == (key, acting)


def test_acting_identity_keeps_the_attributes_and_the_admin_behind() -> None:
    """An admin acts as the user that the attributes describe and still counts as an admin."""
    attributes = {"tokenIdentifier": "https://i|u", "issuer": "https://i", "subject": "u", "name": "Ann", "custom": 1}
    identity = acting_identity(Identity("admin"), attributes)
    assert identity.kind == "acting_user"
    assert identity.is_admin
    assert dict(identity.attributes or ()) == attributes


def test_acting_identity_makes_the_token_identifier() -> None:
    """Issuer and subject alone are enough."""
    identity = acting_identity(Identity("admin"), {"issuer": "https://i.example", "subject": "u1", "name": "Eve"})
    assert dict(identity.attributes or ())["tokenIdentifier"] == "https://i.example|u1"


@pytest.mark.parametrize(
    "attributes",
    [{}, {"name": "Ann"}, {"issuer": "i"}, {"subject": "s"}, {"issuer": "i", "subject": 1}, {"tokenIdentifier": 5}],
)
def test_acting_identity_needs_to_know_who(attributes: dict[str, object]) -> None:
    """Attributes without a usable identifier are a mistake of the request."""
    with pytest.raises(BadRequest):
        acting_identity(Identity("admin"), attributes)


def test_a_read_only_key_may_not_act_as_a_user() -> None:
    """Acting as a user is an operation that read-only keys lack."""
    with pytest.raises(Forbidden) as caught:
        acting_identity(Identity("admin", read_only=True), {"tokenIdentifier": "x"})
    assert caught.value.code == "OperationNotPermitted"
    assert caught.value.message == "You do not have permission to perform this operation (ActAsUser)."


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Identity("admin"), OPERATIONS),
        (SYSTEM, OPERATIONS),
        (Identity("acting_user"), OPERATIONS),
        (Identity("admin", read_only=True), READ_ONLY_OPERATIONS),
        (ANONYMOUS, ()),
        (Identity("user"), ()),
    ],
)
def test_operations_of_each_kind_of_caller(identity: Identity, expected: tuple[str, ...]) -> None:
    """An admin may do everything, a read-only admin looks, nobody else has operations."""
    assert allowed_operations(identity) == expected
    for operation in OPERATIONS:
        if operation in expected:
            check_operation(identity, operation)
        else:
            with pytest.raises(Forbidden):
                check_operation(identity, operation)


def test_read_only_operations_are_operations_that_change_nothing() -> None:
    """The read-only list is a part of the whole list and holds no operation that writes."""
    assert set(READ_ONLY_OPERATIONS) < set(OPERATIONS)
    assert not [
        name for name in READ_ONLY_OPERATIONS if name.startswith(("Write", "Create", "Delete", "Import", "Pause"))
    ]


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "0" * 63, "zz" * 32, "00" * 31 + " 0", "é" * 64])
def test_secret_must_be_64_hex_digits(text: str) -> None:
    """Any other secret is refused, and the message does not repeat it."""
    with pytest.raises(ValueError, match="64 hexadecimal digits") as caught:
        parse_secret(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a|b", "a:b", " a", "a ", "é", "a\n", "x" * 201])
def test_instance_names_that_cannot_stand_in_a_key(name: str) -> None:
    """A name must fit before the bar of a header value."""
    with pytest.raises(ValueError, match="must"):
        check_instance_name(name)


@pytest.mark.parametrize("key", ["", " a", "a ", "a:b", "n|a:b", "n|", "é", "a\tb", "a\nb"])
def test_literal_keys_that_could_not_travel(key: str) -> None:
    """A literal key must survive an ``Authorization`` header with an acting user after it."""
    with pytest.raises(ValueError, match="must"):
        check_literal_key(key)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":|"), min_size=1, max_size=40))
@settings(max_examples=100)
def test_a_valid_literal_key_travels(key: str) -> None:
    """Every allowed literal key comes back whole from a header value with an acting user."""
    assert split_acting_user(f"prod:name|{check_literal_key(key)}:e30=") == (f"prod:name|{key}", "e30=")
