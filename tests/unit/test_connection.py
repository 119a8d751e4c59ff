"""A connection between exchanges; what it does in one is seen with real receivers, in `integration/senders`."""

from connections import connect, connection_to, is_closed, unconnected

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer, Response
from services.dispatcher.http.connection import ConnectionState
from services.dispatcher.http.deadlines import Bucket


def test_an_attempt_whose_time_is_up_when_it_gets_a_connection_is_not_begun():
    """A waiter gets a connection in one iteration of the loop and runs in the next: time may be up by then."""
    connection, bucket = connection_to(), Bucket()
    bucket.expired = True
    reported: list[Response | None] = []
    connection.exchange(b"POST / HTTP/1.1\r\n\r\n", 0.0, bucket, reported.append)
    (response,) = reported
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TIMEOUT
    assert is_closed(connection)
    assert not bucket


def test_a_connection_is_idle_between_exchanges_and_closed_in_the_end():
    connection, bucket = unconnected(), Bucket()
    reported: list[Response | None] = []
    states = [connection.state]
    connect(connection)
    states.append(connection.state)
    connection.exchange(b"POST / HTTP/1.1\r\n\r\n", 0.0, bucket, reported.append)
    states.append(connection.state)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-")
    states.append(connection.state)
    assert connection in bucket
    connection.data_received(b"Length: 2\r\n\r\nok")
    states.append(connection.state)
    connection.close()
    states.append(connection.state)
    assert states == [
        ConnectionState.CONNECTING,
        ConnectionState.IDLE,
        ConnectionState.SENDING,
        ConnectionState.READING,
        ConnectionState.IDLE,
        ConnectionState.CLOSED,
    ]
    assert [type(response) for response in reported] == [Answer]
    assert not bucket


def test_an_exchange_on_a_connection_that_was_closed_meanwhile_is_reported_as_without_an_answer():
    connection, bucket = connection_to(), Bucket()
    reported: list[Response | None] = []
    connection.data_received(b"bytes that no request asked for")
    assert connection.state is ConnectionState.CLOSED
    connection.exchange(b"POST / HTTP/1.1\r\n\r\n", 0.0, bucket, reported.append)
    assert reported == [None]
    assert not bucket
