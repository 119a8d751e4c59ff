"""The corpus of raw answers: what both senders make of each, held against curl and Node over the same socket."""

import asyncio
import shutil
import ssl
from collections import ChainMap
from collections.abc import Iterator
from typing import Any

import pytest
from judges import ask_curl, ask_node, serving
from raw_answers import ANSWERS, REFERENCE
from scripted import post

from go2hooks.core.domain.outcome import Answer, Failure, Response
from go2hooks.core.security.target import parse_target

NAMES = list(ANSWERS)
JUDGES = {"curl": ask_curl, "node": ask_node}


@pytest.fixture(scope="module")
def served() -> Iterator[int]:
    """A port where the corpus is served, by number."""
    with serving(list(ANSWERS.values())) as port:
        yield port


async def send_all(sender: Any, port: int, names: list[str], how: str = "") -> dict[str, Response]:
    targets = [parse_target(f"http://127.0.0.1:{port}/{NAMES.index(name)}{how}") for name in names]
    return dict(zip(names, await asyncio.gather(*(sender.send(post(target)) for target in targets)), strict=True))


def outcomes(responses: dict[str, Response]) -> dict[str, int | Failure]:
    return {
        name: response.status if isinstance(response, Answer) else response.failure
        for name, response in responses.items()
    }


def excerpts(responses: dict[str, Response]) -> dict[str, bytes]:
    """Of those where it matters."""
    return {
        name: response.excerpt
        for name, response in responses.items()
        if isinstance(response, Answer) and ANSWERS[name].excerpt is not None
    }


async def test_what_counts_of_each_raw_answer(served: int, make_sender: Any, kind: str) -> None:
    responses = await send_all(make_sender(body_timeout_s=0.1), served, NAMES)
    reference = REFERENCE if kind == "aiohttp" else {}
    assert outcomes(responses) == {name: raw.outcome for name, raw in ANSWERS.items()} | reference
    assert excerpts(responses) == {name: ANSWERS[name].excerpt for name in excerpts(responses)}
    for name, response in responses.items():
        if isinstance(response, Answer):
            assert 0 < response.duration_ms < 10_000
            assert " ".join((response.retry_after or "").split()) == ANSWERS[name].retry_after
        else:
            assert response.message.endswith(".")
            assert "127.0.0.1" not in response.message


async def test_each_counts_for_the_same_when_it_comes_byte_by_byte(served: int, make_sender: Any, kind: str) -> None:
    left_out = REFERENCE if kind == "aiohttp" else {}
    names = [name for name, raw in ANSWERS.items() if len(raw.data) < 1000 and name not in left_out]
    # A sender each: what follows an answer, a byte too late, would reach whoever is next on that connection.
    shared = ssl.create_default_context()  # unused, and slow to make
    senders = [(name, make_sender(body_timeout_s=10.0, ssl_context=shared)) for name in names]
    each = (send_all(sender, served, [name], "/slowly") for name, sender in senders)
    responses = dict(ChainMap(*await asyncio.gather(*each)))
    assert outcomes(responses) == {name: ANSWERS[name].outcome for name in names}
    assert excerpts(responses) == {name: ANSWERS[name].excerpt for name in excerpts(responses)}


@pytest.fixture(scope="module")
def judged(served: int) -> dict[str, list[int | None]]:
    """What each judge reports of each."""
    missing = [name for name in JUDGES if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: nobody to compare with")
    return {name: judge(served, len(NAMES)) for name, judge in JUDGES.items()}


def test_where_curl_and_node_report_a_status_so_do_we(judged: dict[str, list[int | None]]) -> None:
    both = {
        name: (curl, node)
        for name, curl, node in zip(NAMES, judged["curl"], judged["node"], strict=True)
        if curl is not None and node is not None
    }
    assert len(NAMES) >= 60
    assert len(both) >= 40
    assert {name: curl for name, (curl, _) in both.items()} == {name: ANSWERS[name].outcome for name in both}
