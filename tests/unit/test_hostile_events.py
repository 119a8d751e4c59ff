"""Whatever bytes come: an event, or an EventError that says why not. The long run is bench/fuzz_codec.py."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_codec", Path(__file__).parents[2] / "bench" / "fuzz_codec.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_codec"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(2))
def test_nothing_but_an_event_error_comes_out(fuzzer: ModuleType, seed: int) -> None:
    outcomes, breaches = fuzzer.fuzz(20_000, seed)
    assert breaches == []
    assert min(outcomes[name] for name in ("undecodable", "invalid", "routed", "delivery accepted")) > 100


@pytest.mark.plain
def test_the_fuzzer_notices_what_breaks(fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(EventCodec):
        def decode(self, raw: bytes) -> Event:
            if len(raw) % 7 == 0:
                raise IndexError("planted")
            return super().decode(raw)

    monkeypatch.setattr(fuzzer, "EventCodec", Broken)
    _, breaches = fuzzer.fuzz(200, 1)
    assert breaches
    assert all("IndexError: planted" in breach for breach in breaches)


@pytest.mark.parametrize("text", ["\x00", "\ud7ff", "𝄞", "x" * 100_000, '"\\'])
def test_odd_text_is_routed_as_it_is(fuzzer: ModuleType, text: str) -> None:
    codec = EventCodec()
    data = example_payload(EventType.CLICK).data | {"referrer": text}
    raw = codec.encode(Event("evt_1", "acc_1", EventType.CLICK, 1_700_000_000_000, data))
    assert fuzzer.route(codec, raw) == "routed"
