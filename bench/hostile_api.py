"""Attack the control API with what nobody should send, and see that it neither breaks nor tells.

    python bench/hostile_api.py --url http://127.0.0.1:8080/api/v1 --key go2_… --victim-key go2_… --count 20000

Each request is one of a hand-made list (SQL in every field, deep and doubled JSON, NUL bytes, lone surrogates, huge
numbers and bodies, the victim's ids in every place, header smuggling), chosen and combined by the seed. A breach is an
answer of 500 or more, an answer that is not in the API's envelope, one that holds anything of the victim's, or none.
"""

import argparse
import http.client
import json
import random
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

SQL = ("' OR '1'='1", "'; DROP TABLE webhooks; --", "\\'; SELECT pg_sleep(5); --", "1 UNION SELECT sealed_secret FROM webhooks",
       "%s", "%(id)s", "$1", "{0.__class__}", "${jndi:ldap://127.0.0.1/x}", "{{7*7}}", "<script>alert(1)</script>")  # fmt: skip
ODD = ("", " ", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\u202e", "\ufeff", "é" * 200, "\U0001d518" * 300, "\r\nX-Evil: 1",
       "../../../etc/passwd", "%2e%2e%2f", "null", "NaN", "-0", "1e400", "9" * 400)  # fmt: skip
NUMBERS = (0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**300, 1.5, 1e308, True, None)
URLS = ("https://127.0.0.1/", "https://169.254.169.254/", "https://[::1]/", "https://0x7f000001/", "http://example.com/",
        "https://user:pass@example.com/", "javascript:alert(1)", "file:///etc/passwd", "https://example.com:22/",
        "https://example.com/\r\nHost: evil", "https://" + "a" * 3000 + ".com/", "https://exa\x00mple.com/", "//x", "https://")  # fmt: skip
RAW_BODIES = (b"", b"{", b"[" * 50_000, b'{"a":' * 9_000, b'{"name":"a","name":"b"}', b'{"name": "\xff\xfe"}', b"null", b"[]",
              b'"x"', b"NaN", b'{"isActive": 1e999}', b'{"name": ' + b"9" * 5000 + b"}", b"\xef\xbb\xbf{}", b"\x1f\x8b\x08",
              b'{"__proto__": {"admin": true}}', b'{"\\ud800": 1}', b" " * 70_000)  # fmt: skip
METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "HEAD", "TRACE", "PROPFIND", "get")
FIELDS = (
    "name",
    "url",
    "events",
    "isActive",
    "id",
    "accountId",
    "account_id",
    "secret",
    "event",
    "from",
    "to",
    "only",
    "consecutiveFailures",
    "description",
    "metadata",
    "headers",
    "rateLimit",
    "maxConcurrency",
    "filter",
)
QUERIES = ("cursor", "perPage", "page", "status", "event", "since", "until", "wait", "account", "accountId", "id",
           "search", "state", "sort", "from", "to", "step")  # fmt: skip
HEADERS = ("X-Account-Id", "X-Forwarded-For", "X-HTTP-Method-Override", "Content-Type", "Content-Encoding", "Accept",
           "If-None-Match", "Range", "Expect", "Idempotency-Key", "Cookie", "X-Original-URL", "Transfer-Encoding")  # fmt: skip
#: Of headers, metadata and filters; and what a filter may hold.
NAMES = (
    "X-A",
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "X-A\r\nX-Evil: 1",
    "x" * 300,
    "slug",
    "country",
    "\x00",
    "\ud800",
)
MATCHERS = ("prefix", "exists", "anything-but", "wildcard", "\ud800")
#: Two readings of where a request ends: a server that takes one and a proxy that takes the other let a second one through.
SMUGGLED = (
    b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/webhooks HTTP/1.1\r\n\r\n",
    b"Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcdGET / HTTP/1.1\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\nabc",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 1_0\r\n\r\n0123456789",
    b"Content-Length: 99999999999999999999\r\n\r\n",
    b"X-A: b\r\n folded: c\r\nContent-Length: 0\r\n\r\n",
    b"X-A: \x00\x01\x7f\r\nContent-Length: 0\r\n\r\n",
    b"X-Long: " + b"a" * 40_000 + b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
)
HUGE = 10 * 1024 * 1024
_TIMEOUT_S = 30


class Attack(NamedTuple):
    """One request. With `raw` it is sent as those bytes, on a connection of its own."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    raw: bytes | None = None


class Victim(NamedTuple):
    """What belongs to somebody else: ids to ask for, and text that no answer may hold."""

    ids: tuple[str, ...]
    marker: str


@dataclass
class Report:
    """What came of it."""

    statuses: Counter[int] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.statuses.total()


def attacks(
    source: random.Random, own: Callable[[], str], victim: Victim, *, huge_every: int = 500
) -> Iterator[Attack]:
    """Without end. `own` is the webhook that the attacker has now; every `huge_every`th body is 10 MiB long."""
    number = 0
    while True:
        number += 1
        if number % huge_every == 0:
            yield Attack("POST", "/webhooks", {"Content-Type": "application/json"}, b'{"name": "' + b"x" * HUGE + b'"}')
        elif source.random() < 0.03:
            yield Attack("POST", "/webhooks", {}, b"", source.choice(SMUGGLED))
        else:
            yield _attack(source, own(), victim)


def _attack(source: random.Random, own: str, victim: Victim) -> Attack:
    hostile = (*SQL, *ODD, *URLS, *victim.ids)
    webhook = quote(
        (own if source.random() < 0.5 else source.choice(hostile)).encode("utf-8", "surrogatepass"), safe=""
    )
    delivery = quote(source.choice((*victim.ids, *hostile)).encode("utf-8", "surrogatepass"), safe="")
    path = source.choice(("/webhooks", "/webhooks", "/webhooks/{w}", "/webhooks/{w}", "/webhooks/{w}/test", "/webhooks/{w}/deliveries",
                          "/webhooks/{w}/rotate-secret", "/webhooks/{w}/deliveries/{d}", "/webhooks/{w}/deliveries/{d}/redeliver",
                          "/webhooks/{w}/replays", "/webhooks/{w}/stats", "/webhooks/{w}/replays/{d}", "/event-types", "/{w}/{d}"))  # fmt: skip
    query = "&".join(
        f"{source.choice(QUERIES)}={quote(str(_value(source, hostile)).encode('utf-8', 'surrogatepass'))}"
        for _ in range(source.choice((0, 0, 1, 2)))
    )
    headers = {"Content-Type": "application/json"} if source.random() < 0.9 else {}
    if source.random() < 0.2:
        text = source.choice(hostile).encode("ascii", "ignore").decode()
        headers[source.choice(HEADERS[:-1])] = "".join(c for c in text if c.isprintable())
    body = source.choice(RAW_BODIES) if source.random() < 0.3 else json.dumps(_object(source, hostile)).encode()
    method = source.choice(METHODS if source.random() < 0.3 else METHODS[:4])
    return Attack(method, path.format(w=webhook, d=delivery) + (f"?{query}" if query else ""), headers, body)


def _object(source: random.Random, hostile: Sequence[str]) -> dict[str, Any]:
    """A body that is nearly right, or not at all."""
    right = {"name": "n", "url": "https://example.com/", "events": ["click"]}
    chosen = {name: _value(source, hostile) for name in source.sample(FIELDS, source.randint(0, 3))}
    return (right | chosen) if source.random() < 0.6 else chosen


def _value(source: random.Random, hostile: Sequence[str]) -> Any:
    return source.choice((
        source.choice(hostile), source.choice(hostile), source.choice(NUMBERS), [source.choice(hostile)] * source.randint(0, 30),
        {source.choice(hostile): source.choice(NUMBERS)}, True, {source.choice(NAMES): source.choice(hostile)},
        {source.choice(NAMES): [source.choice((*hostile, *NUMBERS, {source.choice(MATCHERS): source.choice(hostile)}))]},
        {source.choice(NAMES): {"value": source.choice((*hostile, *NUMBERS)), "secret": source.choice((True, False, 1))}},
    ))  # fmt: skip


class Target:
    """The API, attacked with one account's key over connections that are kept."""

    def __init__(self, url: str, key: str, victim: Victim, report: Report) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._base = parts.hostname or "", parts.port or 80, parts.path
        self._key, self._victim, self._report = key, victim, report
        self._connection: http.client.HTTPConnection | None = None

    def suffer(self, attack: Attack) -> None:
        """Send it and judge the answer.

        A connection that the server closes on raw bytes, or on a body that is still on its way, is no breach.
        """
        status, content = self._raw(attack) if attack.raw is not None else self._ordinary(attack)
        self._report.statuses[status] += 1
        if problem := self._problem(status, content, attack):
            self._report.breaches.append(
                f"{problem}: {attack.method} {attack.path[:200]} {attack.body[:200]!r} → {content[:300]!r}"
            )

    def _problem(self, status: int, content: bytes, attack: Attack) -> str | None:
        if status >= 500:
            return f"{status}"
        if not status and attack.raw is None and len(attack.body) < HUGE:
            return "no answer"
        if self._victim.marker.encode() in content:
            return "it tells what is another account's"
        if status and attack.method != "HEAD" and attack.raw is None and not _is_enveloped(content):
            return "no envelope"
        return None

    def _ordinary(self, attack: Attack) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._key}"} | attack.headers
        for _ in range(2):  # a kept connection may have been closed meanwhile
            connection = self._connection or http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
            self._connection = None
            try:
                connection.request(attack.method, self._base + attack.path, attack.body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (http.client.HTTPException, ConnectionError):
                connection.close()
                continue
            if answer.will_close:
                connection.close()
            else:
                self._connection = connection
            return answer.status, content
        return 0, b""

    def _raw(self, attack: Attack) -> tuple[int, bytes]:
        head = f"POST {self._base}/webhooks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._key}\r\nConnection: close\r\n"
        received = b""
        try:
            with socket.create_connection((self._host, self._port), timeout=_TIMEOUT_S) as connection:
                connection.sendall(head.encode() + (attack.raw or b""))
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
        except (ConnectionError, TimeoutError):
            pass  # it hung up on us, as it should
        first = received.split(b" ", 2)
        return (int(first[1]) if len(first) > 2 and first[1].isdigit() else 0), received

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _is_enveloped(content: bytes) -> bool:
    try:
        answer = json.loads(content)
    except ValueError:
        return False
    return isinstance(answer, dict) and isinstance(answer.get("success"), bool)


def call(url: str, key: str, method: str, path: str, body: Any = None) -> Any:
    """One honest request."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, parts.path + path, None if body is None else json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["data"]


def prepare(url: str, key: str, victim_key: str) -> tuple[str, Victim]:
    """A webhook of ours, and some of the victim's whose names no answer may hold."""
    marker = f"victims-{secrets.token_hex(8)}"
    theirs = [_create(url, victim_key, f"{marker} {n}", marker) for n in range(3)]
    deliveries = [call(url, victim_key, "POST", f"/webhooks/{hook['id']}/test")["id"] for hook in theirs[:1]]
    return _create(url, key, "ours", "ours")["id"], Victim((*(hook["id"] for hook in theirs), *deliveries), marker)


def _create(url: str, key: str, name: str, path: str) -> dict[str, Any]:
    hook = {"name": name, "url": f"https://example.com/{path}", "events": ["click"]}
    created: dict[str, Any] = call(url, key, "POST", "/webhooks", hook)
    return created


def run(url: str, key: str, victim_key: str, count: int, seed: int, huge_every: int = 500) -> Report:
    """Attack `count` times, and see afterwards that the victim has lost nothing."""
    own, victim = prepare(url, key, victim_key)
    hooks = [own]
    before = call(url, victim_key, "GET", f"/webhooks/{victim.ids[0]}")
    report = Report()
    target = Target(url, key, victim, report)
    for _, attack in zip(
        range(count), attacks(random.Random(seed), lambda: hooks[-1], victim, huge_every=huge_every), strict=False
    ):
        target.suffer(attack)
        if attack.method == "DELETE" or report.total % 200 == 0:
            hooks.append(hooks[-1] if _is_there(url, key, hooks[-1]) else _create(url, key, "ours", "ours")["id"])
    target.close()
    if call(url, victim_key, "GET", f"/webhooks/{victim.ids[0]}") != before:
        report.breaches.append("the victim's webhook is not what it was")
    return report


def _is_there(url: str, key: str, webhook_id: str) -> bool:
    try:
        return bool(call(url, key, "GET", f"/webhooks/{webhook_id}"))
    except KeyError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="base of the API, such as http://127.0.0.1:8080/api/v1")
    parser.add_argument("--key", required=True, help="the attacker's API key")
    parser.add_argument("--victim-key", required=True, help="an API key of another account")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    report = run(options.url, options.key, options.victim_key, options.count, options.seed)
    print(f"{report.total} requests in {time.monotonic() - began:.0f} s:")
    for status, count in sorted(report.statuses.items()):
        print(f"  {status or 'closed'}: {count}")
    for breach in report.breaches[:20]:
        print(breach)
    print(f"{len(report.breaches)} breaches")
    return 1 if report.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
