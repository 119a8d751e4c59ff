"""Secrets at rest."""

import os

import pytest

from go2hooks.core.errors import SealError, SettingsError
from go2hooks.postgres.secrets import Purpose, SecretBox, key_id

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="
OLD, NEW = os.urandom(32), os.urandom(32)


def test_what_is_sealed_opens_again():
    box = SecretBox((NEW,))
    assert box.open(box.seal(SECRET, "wh_1"), "wh_1") == SECRET


def test_the_sealed_form_shows_nothing_of_the_secret_and_never_repeats():
    box = SecretBox((NEW,))
    first, second = box.seal(SECRET, "wh_1"), box.seal(SECRET, "wh_1")
    assert first != second
    assert SECRET.encode() not in first


def test_a_secret_moved_to_another_webhook_does_not_open():
    box = SecretBox((NEW,))
    with pytest.raises(SealError, match="wh_2"):
        box.open(box.seal(SECRET, "wh_1"), "wh_2")


def test_a_secret_moved_to_another_purpose_does_not_open():
    box = SecretBox((NEW,))
    for one, other in ((Purpose.SIGNING, Purpose.CLIENT_KEY), (Purpose.CLIENT_KEY, Purpose.SIGNING)):
        sealed = box.seal(SECRET, "wh_1", one)
        assert box.open(sealed, "wh_1", one) == SECRET
        with pytest.raises(SealError):
            box.open(sealed, "wh_1", other)


@pytest.mark.parametrize("position", [0, 3, 4, 15, 16, -1])
def test_a_flipped_bit_anywhere_is_noticed(position):
    box = SecretBox((NEW,))
    sealed = bytearray(box.seal(SECRET, "wh_1"))
    sealed[position] ^= 1
    with pytest.raises(SealError):
        box.open(bytes(sealed), "wh_1")


@pytest.mark.parametrize("length", [0, 3, 4, 10, 16, 31])
def test_a_truncated_secret_is_an_error_of_ours_and_not_a_crash(length):
    box = SecretBox((NEW,))
    with pytest.raises(SealError):
        box.open(box.seal(SECRET, "wh_1")[:length], "wh_1")


def test_after_a_rotation_the_old_key_still_opens_and_the_new_one_seals():
    sealed_before = SecretBox((OLD,)).seal(SECRET, "wh_1")
    box = SecretBox((NEW, OLD))
    assert box.open(sealed_before, "wh_1") == SECRET
    assert not box.is_current(sealed_before)
    sealed_after = box.seal(SECRET, "wh_1")
    assert box.is_current(sealed_after)
    assert sealed_after.startswith(key_id(NEW))


def test_without_its_key_a_secret_stays_shut():
    with pytest.raises(SealError, match="GO2HOOKS_SECRET_KEYS"):
        SecretBox((NEW,)).open(SecretBox((OLD,)).seal(SECRET, "wh_1"), "wh_1")


def test_a_memoryview_from_the_driver_opens_too():
    box = SecretBox((NEW,))
    assert box.open(memoryview(box.seal(SECRET, "wh_1")), "wh_1") == SECRET


def test_no_key_and_the_same_key_twice_are_refused_at_start():
    with pytest.raises(SettingsError):
        SecretBox(())
    with pytest.raises(SettingsError):
        SecretBox((NEW, NEW))


def test_errors_do_not_show_the_secret():
    box = SecretBox((NEW,))
    with pytest.raises(SealError) as raised:
        box.open(box.seal(SECRET, "wh_1"), "wh_2")
    assert SECRET not in str(raised.value)
