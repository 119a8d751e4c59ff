"""Claims: an attempt is made once by this process, and memory stays bounded."""

from go2hooks.core.duplicates import Claims


def test_an_attempt_under_way_is_not_taken_twice():
    claims = Claims()
    assert claims.claim("dlv_1", 1)
    assert not claims.claim("dlv_1", 1)
    assert claims.claim("dlv_1", 2)
    assert claims.claim("dlv_2", 1)


def test_an_attempt_that_was_given_up_may_be_taken_again():
    claims = Claims()
    claims.claim("dlv_1", 1)
    claims.give_up("dlv_1", 1)
    assert claims.claim("dlv_1", 1)


def test_giving_up_does_not_forget_what_was_recorded():
    claims = Claims()
    claims.claim("dlv_1", 1)
    claims.recorded("dlv_1", 1)
    claims.give_up("dlv_1", 1)
    assert not claims.claim("dlv_1", 1)


def test_the_last_recorded_attempts_are_remembered_and_older_ones_forgotten():
    claims = Claims(remembered=10)
    for n in range(40):
        assert claims.claim(f"dlv_{n}", 1)
        claims.recorded(f"dlv_{n}", 1)
    remembered = [n for n in range(40) if not claims.claim(f"dlv_{n}", 1)]
    assert set(range(30, 40)) <= set(remembered)
    assert len(remembered) <= 20


def test_what_is_under_way_is_never_forgotten():
    claims = Claims(remembered=2)
    claims.claim("dlv_slow", 1)
    for n in range(20):
        claims.recorded(f"dlv_{n}", 1)
    assert not claims.claim("dlv_slow", 1)
