"""What the page that verifies finds out, run by Node on what the real sender signs."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from guide import tool

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.encoding.payload import render
from go2hooks.core.security.request import prepare
from go2hooks.core.security.signing import generate_secret
from services.api import dashboard

SCRIPT = Path(dashboard.__file__).with_name("static") / "signatures.js"
SECRET, OTHER = generate_secret(bytes(range(32))), generate_secret(bytes(reversed(range(32))))
NOW_S = 1_704_110_400
EXAMPLE = example_payload(EventType.CLICK)
EVENT = EXAMPLE._replace(data=EXAMPLE.data | {"city": "München \u2028 🎉", "referrer": "https://a.example/?q=1&r=<b>"})
BODY = render(EVENT).body.decode()
OWN, STANDARD = "X-Webhook-Signature", "webhook-signature"
TIME = "The attempt is recent"
RUN = f"""
import {{ createInterface }} from "node:readline";
import {{ diagnose }} from {json.dumps(SCRIPT.as_uri())};
for await (const line of createInterface(process.stdin)) console.log(JSON.stringify(await diagnose(JSON.parse(line))));
"""


def signed(*secrets: str) -> dict[str, str]:
    """The headers of a delivery that was sent at NOW_S."""
    delivery = Delivery("dlv_1", "wh_1", "acc", "evt_1", "click", "", BODY.encode(), 1, 0, "event", 0, suspect=False)
    return dict(prepare(delivery, "https://example.com/", secrets or (SECRET,), NOW_S * 1000).headers)


def lines(headers: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


@pytest.fixture(scope="module")
def diagnose():
    """The page's function, in one process for all tests."""
    command = [tool("node"), "--input-type=module", "-e", RUN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:

        def ask(
            *, secret: str = SECRET, headers: Any = None, body: str = BODY, at: float = NOW_S + 2
        ) -> dict[str, Any]:
            written = headers if isinstance(headers, str) else lines(signed() | (headers or {}))
            asked = {
                "secret": secret,
                "headers": written,
                "body": body,
                "at": at,
                "orders": {"click": list(EVENT.data)},
            }
            node.stdin.write(json.dumps(asked) + "\n")
            node.stdin.flush()
            return json.loads(node.stdout.readline())

        yield ask
        node.stdin.close()


def says(found: dict[str, Any], name: str) -> tuple[bool | None, str]:
    [step] = [step for step in found["steps"] if step["name"].startswith(name)]
    return step["ok"], step["says"]


def test_what_the_sender_signs_is_found_right_in_every_step(diagnose):
    found = diagnose()
    assert found["ok"] is True
    assert [step["ok"] for step in found["steps"]] == [True] * 5
    assert says(found, TIME) == (True, "It was sent 2 seconds before that.")


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(signed()),
        " \\\n".join(f"-H '{name}: {value}'" for name, value in signed().items()),
        "\r\n".join(f"{name.upper()}:{value}" for name, value in signed().items()),
        "\n".join(f"HTTP_{name.upper().replace('-', '_')}: {value}" for name, value in signed().items()),
    ],
    ids=["JSON", "curl", "capitals", "CGI"],
)
def test_headers_are_read_as_people_have_them(diagnose, written):
    assert diagnose(headers=written)["ok"] is True


PARSED = json.loads(BODY)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (json.dumps(PARSED, ensure_ascii=False), "with other white space between its parts"),
        (json.dumps(PARSED, ensure_ascii=False, indent=2), "with other white space between its parts"),
        (json.dumps(PARSED, separators=(",", ":")), "with characters as \\u escapes"),
        (BODY.replace("/", "\\/"), "with numbers or characters written in another way"),
        (
            json.dumps(PARSED, ensure_ascii=False, sort_keys=True, separators=(",", ":")),
            "with its keys in another order",
        ),
        (json.dumps(PARSED, sort_keys=True), "with its keys in another order"),
        (BODY + "\n", "a line break was added at the end"),
        (f"  {BODY}\t", "white space was added around"),
        ("\ufeff" + BODY, "a byte order mark was put in front"),
        (json.dumps(BODY), "was put into a JSON string"),
    ],
)
def test_a_body_that_is_not_as_it_was_sent_is_recognised(diagnose, body, why):
    found = diagnose(body=body)
    assert found["ok"] is False
    for name in (OWN, STANDARD):
        is_right, said = says(found, name)
        assert is_right is False
        assert why in said


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (f"{SECRET}\n", "white space around"),
        (f'"{SECRET}"', "quotes around"),
        (SECRET.removeprefix("whsec_"), "whsec_ is missing at the beginning"),
    ],
    ids=["line break", "quotes", "no prefix"],
)
def test_a_secret_that_was_not_copied_as_it_is_is_recognised(diagnose, secret, why):
    found = diagnose(secret=secret)
    assert (found["ok"], says(found, "The secret")[0]) == (False, False)
    assert why in says(found, OWN)[1]
    is_right, said = says(found, STANDARD)  # base64 minds neither white space nor, in a library, a missing prefix
    assert is_right or why in said


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "There is none"),
        ("whsec_!", "not base64"),
        (SECRET[:-8], "stands for 27 bytes"),
        (SECRET[7:], "begin with"),
    ],
)
def test_a_secret_that_can_be_none_is_said_to_be(diagnose, secret, why):
    is_right, said = says(diagnose(secret=secret), "The secret")
    assert is_right is False
    assert why in said


def test_another_secret_is_told_from_another_body(diagnose):
    found = diagnose(secret=OTHER)
    assert "the secret is most likely another one" in says(found, OWN)[1]
    assert "the secret is most likely another one" in says(found, STANDARD)[1]
    found = diagnose(body=BODY.replace("DE", "AT") + "\n")
    assert "the body was changed in what it says" in says(found, OWN)[1]
    assert "it was cut" in says(diagnose(body=BODY[:-5]), OWN)[1]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (str.upper, "digits are in capitals"),
        (lambda value: "sha256=" + value.removeprefix("sha256=").upper(), "digits are in capitals"),
        (lambda value: value.removeprefix("sha256="), "does not begin with sha256="),
    ],
)
def test_a_signature_that_was_written_in_another_way_is_recognised(diagnose, changed, why):
    found = diagnose(headers={OWN: changed(signed()[OWN])})
    is_right, said = says(found, OWN)
    assert is_right is False
    assert why in said
    assert says(found, STANDARD)[0] is True


def test_a_header_that_is_another_deliverys_is_told_by_the_one_that_is_right(diagnose):
    found = diagnose(headers={OWN: "sha256=" + "0" * 64})
    assert says(found, OWN) == (
        False,
        "The secret and the body are right, as webhook-signature shows: this header is not the one that we sent.",
    )
    found = diagnose(headers={"webhook-id": "dlv_2"})
    assert "webhook-id or webhook-timestamp is not what we sent" in says(found, STANDARD)[1]
    assert "has 60 characters" in says(diagnose(headers={OWN: signed()[OWN][:-4]}, secret=OTHER), OWN)[1]


def test_the_previous_secret_is_recognised_while_both_sign(diagnose):
    found = diagnose(secret=OTHER, headers=signed(SECRET, OTHER))
    assert found["ok"] is False
    assert "yours is the previous one" in says(found, OWN)[1]
    assert says(found, STANDARD)[0] is True
    assert "previous secret" in says(found, STANDARD)[1]
    assert diagnose(headers=signed(SECRET, OTHER))["ok"] is True


@pytest.mark.parametrize(
    ("at", "timestamp", "is_right", "why"),
    [
        (NOW_S + 300, NOW_S, True, "5 minutes before"),
        (NOW_S + 302, NOW_S, False, "refuse what is older than 5 minutes"),
        (NOW_S - 300, NOW_S, True, "after"),
        (NOW_S - 7200, NOW_S, False, "2 hours in the future"),
        (NOW_S, NOW_S * 1000, False, "not milliseconds"),
        (NOW_S, "soon", False, "not a whole number"),
    ],
)
def test_an_attempt_of_another_time_is_said_to_be(diagnose, at, timestamp, is_right, why):
    found = says(diagnose(at=at, headers={"webhook-timestamp": str(timestamp)}), TIME)
    assert found[0] is is_right
    assert why in found[1]


def test_what_is_missing_is_named(diagnose):
    some = signed()
    assert "Neither" in says(diagnose(headers="Content-Type: application/json"), "The headers")[1]
    assert "No header could be read" in says(diagnose(headers=""), "The headers")[1]
    without_id = lines({name: value for name, value in some.items() if name != "webhook-id"})
    assert says(diagnose(headers=without_id), "The headers") == (
        False,
        "webhook-id is missing: webhook-signature covers it.",
    )
    own_alone = diagnose(headers=lines({OWN: some[OWN]}))
    assert own_alone["ok"] is True
    assert says(own_alone, STANDARD)[0] is None


def test_nothing_makes_it_fail(diagnose):
    for body in (
        "",
        "null",
        "[]",
        '"x"',
        "{",
        '{"event":"click","data":null}',
        '{"event":"__proto__","data":{}}',
        "1e999",
    ):
        assert diagnose(body=body)["ok"] is False
    assert diagnose(headers='{"webhook-signature": 5}', secret="é")["ok"] is False
