"""Feed the codec, and what the router does with an event, damaged and made-up bytes: nothing but EventError may come out.

    python bench/fuzz_codec.py --examples 1000000 --seed 1

Inputs are random bytes, random bytes behind every known header, and valid messages of every type with bits flipped,
bytes cut out, doubled, or replaced by lengths that lie. An input that breaks it is printed in hexadecimal.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from go2hooks.codec import MARKER, EventCodec, decode_delivery, encode_delivery
from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import sample_data
from go2hooks.core.domain.validation import validate
from go2hooks.core.encoding.fanout import first_deliveries
from go2hooks.core.encoding.payload import render
from go2hooks.core.errors import EventError

#: Avro lengths and counts that lie: -1, the largest and smallest long, a gigabyte, one that never ends.
LIES = (b"\x01", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x08",
        b"\xff" * 12, b"\x00", b"\x02")  # fmt: skip
TEXTS = ("", "\x00", "é", "\u2028", "𝄞", "\ud7ff", "a" * 500, '"\\', "__proto__", "0", "4294967294", "evt_1")


def route(codec: EventCodec, raw: bytes) -> str:
    """What the router does with a message that a webhook wants, dead letter included. Returns what came of it."""
    try:
        event = codec.decode(raw)
        validate(event)
        rendered = render(event)
    except EventError as error:
        str(error)[:500].encode()  # as the dead letter's header
        return error.reason
    [delivery] = first_deliveries(event, rendered, ["wh_1"], 1_700_000_000_000, suspect=False)
    if decode_delivery(encode_delivery(delivery)) != delivery:
        raise AssertionError("the delivery does not read back as it was")
    return "routed"


def accept(raw: bytes) -> str:
    """What the dispatcher does with a message that it reads."""
    try:
        encode_delivery(decode_delivery(raw))
    except EventError as error:
        return error.reason
    return "accepted"


def valid_messages(source: random.Random, codec: EventCodec) -> list[bytes]:
    """Events of every type and deliveries, plain and with odd text in every place."""
    found = []
    for kind in EventType:
        for _ in range(20):
            data = sample_data(kind, source)
            if source.random() < 0.5:
                odd = {name: source.choice(TEXTS) for name, value in data.items() if isinstance(value, str)}
                data |= {name: text for name, text in odd.items() if name != "method"}
            event = Event(f"evt_{source.random()}", source.choice(("acc_1", *TEXTS[1:])), kind, 1_700_000_000_000, data)
            found.append(codec.encode(event))
    first = Delivery(
        "dlv_1", "wh_1", "acc_1", "evt_1", "click", "2024-01-01T12:00:00Z", b"{}", 1, 0, "event", 0, suspect=False
    )
    bodies = (source.randbytes(source.randint(0, 300)) for _ in range(20))
    found += [encode_delivery(first._replace(body=body, attempt=n, due_ms=n << 40)) for n, body in enumerate(bodies)]
    return found


def inputs(source: random.Random, codec: EventCodec) -> Iterator[bytes]:
    """Without end."""
    valid = valid_messages(source, codec)
    headers = sorted(MARKER + fingerprint for fingerprint in codec.fingerprints)
    while True:
        chance = source.random()
        if chance < 0.1:
            yield source.randbytes(source.randint(0, 64))
        elif chance < 0.3:
            yield source.choice(headers) + source.randbytes(source.randint(0, 200))
        else:
            yield _damaged(source, source.choice(valid))


def _damaged(source: random.Random, message: bytes) -> bytes:
    raw = bytearray(message)
    for _ in range(source.randint(0, 4)):
        at, length = source.randrange(len(raw) + 1), source.randint(1, 12)
        match source.randrange(6):
            case 0 if at < len(raw):
                raw[at] ^= 1 << source.randrange(8)
            case 1:
                del raw[at : at + length]
            case 2:
                raw[at:at] = raw[at : at + length]
            case 3:
                raw[at : at + 1] = source.choice(LIES)
            case 4:
                raw[at : at + length] = source.randbytes(length)
            case _:
                del raw[at:]
    return bytes(raw)


def fuzz(
    examples: int, seed: int, on_progress: Callable[[int], None] = lambda _done: None
) -> tuple[Counter[str], list[str]]:
    """What came of so many inputs, and those that broke something."""
    source, codec = random.Random(seed), EventCodec()
    outcomes: Counter[str] = Counter()
    breaches = []
    for number, raw in zip(range(examples), inputs(source, codec), strict=False):
        try:
            outcomes[route(codec, raw)] += 1
            outcomes[f"delivery {accept(raw)}"] += 1
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            breaches.append(f"{type(error).__name__}: {error!s:.200} on {raw.hex()}")
        if number % 100_000 == 99_999:
            on_progress(number + 1)
    return outcomes, breaches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    outcomes, breaches = fuzz(options.examples, options.seed, lambda done: print(f"{done} …", flush=True))
    print(f"{options.examples} inputs in {time.monotonic() - began:.0f} s: {dict(outcomes)}")
    for breach in breaches[:20]:
        print(breach)
    print(f"{len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
