"""A connection between exchanges; what it does in one is seen with real receivers, in `integration/senders`."""

from connections import connection_to, is_closed

from go2hooks.core.domain.outcome import Failure, NoAnswer, Response
from services.dispatcher.http.deadlines import Bucket


def test_an_attempt_whose_time_is_up_when_it_gets_a_connection_is_not_begun():
    """Whoever waits is given a connection in one turn of the loop and gets to run in the next. Nothing would end it later."""
    connection, bucket = connection_to(), Bucket()
    bucket.expired = True
    reported: list[Response | None] = []
    connection.exchange(b"POST / HTTP/1.1\r\n\r\n", 0.0, bucket, reported.append)
    (response,) = reported
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TIMEOUT
    assert is_closed(connection)
    assert not bucket
