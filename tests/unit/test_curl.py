"""The curl command: a shell hands to curl what a dispatcher would send, whatever customers and visitors have written."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from go2hooks.core.security.curl import curl_command, shell_word
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import parse_target

URL = "https://example.com/hooks?a=$HOME&b=[1-9]{x}'"
TELL = "import json, sys; json.dump([sys.argv[1:], sys.stdin.buffer.read().hex()], sys.stdout)"
EVIL = [
    """{"a":"'; touch evil; echo '"}""",
    """{"a":"$(touch evil)`touch evil`${HOME}"}""",
    '{"a":"\\\\n\\\\u0041 %s %d %b\\"!!"}',
    '{"a":"back\x7f\x7f\x7fspace \x9b31m \u202e\u2028 \ufeff"}',
    '{"a":"it\'s \x7f \\\\ and \x7f41"}',
    "@/etc/passwd",
    "-n",
    "",
    '{"a":"' + "x" * 300_000 + '"}',
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(command)`: what curl is called with, and gets at its input, by bash."""
    directory = tmp_path_factory.mktemp("bin")
    curl = directory / "curl"
    curl.write_text(f"#!{sys.executable}\n{TELL}\n")
    curl.chmod(0o755)

    def in_bash(command):
        path = f"{directory}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash"],
            input=command.encode(),
            capture_output=True,
            check=True,
            cwd=directory,
            env={"PATH": path, "LC_ALL": "C.UTF-8"},
        )
        assert [each.name for each in directory.iterdir()] == ["curl"]
        assert not done.stderr
        return json.loads(done.stdout)

    return in_bash


def headers_of(arguments):
    return [value for flag, value in pairwise(arguments) if flag == "-H"]


@pytest.mark.parametrize("body", EVIL, ids=range(len(EVIL)))
def test_curl_gets_the_very_bytes_whatever_they_are(run, body):
    headers = (("X-Own", body[:2000].replace("\n", " ")), ("X-Empty", ""))
    command = curl_command(SignedRequest(parse_target("https://example.com/"), headers, body.encode()), URL)
    arguments, sent = run(command)
    assert bytes.fromhex(sent) == body.encode()
    assert URL in arguments
    assert headers_of(arguments) == [f"X-Own: {headers[0][1]}" if body else "X-Own;", "X-Empty;"]
    assert arguments[-2:] == ["--data-binary", "@-"]


@pytest.mark.parametrize("body", EVIL)
def test_nothing_in_the_command_acts_on_the_terminal_that_it_is_pasted_into(body):
    assert shell_word(body).isprintable()


@settings(max_examples=30)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_is_one_word(run, text):
    arguments, _ = run(f"curl x{shell_word(text)} </dev/null")
    assert arguments == [f"x{text}"]
