"""Sets the stack up, tortures it, lets it come to rest, and judges. Ends with 1 when anything was breached."""

import gc
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import psycopg

from bench.torture import ledger, report
from bench.torture.checker import LOOSE_S, Checker
from bench.torture.events import Stream
from bench.torture.faults import Faults
from bench.torture.ledger import Target
from bench.torture.machine import Others
from bench.torture.plan import SERVERS, Hook, Options, parse, plan_faults, plan_hooks
from bench.torture.stack import Stack, api, connect
from go2hooks.postgres.api_keys import create_key

_TICK_S = 0.05
_OVER_S = 600.0  # beyond the time of the stream: the last events' acknowledgements, the last faults, a slow machine
_DISABLED = "SELECT id, extract(epoch FROM disabled_at)::float8 FROM webhooks WHERE NOT is_active"
DISABLED_S = 8.0  # then it is enabled again


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="go2hooks-torture-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f'seed {options.seed}; to repeat: make torture ARGS="{options.as_arguments()}"', flush=True)
    try:
        deliveries, breaches = run(options, directory)
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been ended")
        return 130
    finally:
        for data in SERVERS:
            shutil.rmtree(directory / data, ignore_errors=True)
    print(
        f"\nseed {options.seed}: {'PASSED' if not breaches else f'{breaches} BREACHES'}; evidence and logs in {directory}"
    )
    print(f"torture: {max(0, deliveries - breaches)} passed, {breaches} failed")
    return 1 if breaches else 0


def run(options: Options, directory: Path) -> tuple[int, int]:
    """One torture run; returns the numbers of deliveries that were to be made, and of breaches."""
    hooks = plan_hooks(options)
    stack = Stack(directory, options, hooks)
    with stack.running():
        keys, targets = subscribe(stack, hooks)
        (directory / "targets.json").write_text(json.dumps([vars(target) for target in targets]))
        torture(stack, options, sorted({hook.account for hook in hooks}), keys, targets)
        rest_s = come_to_rest(stack, options.drain_s)
        for service in stack.services:
            service.end(12.0)
        stack.receivers.end()  # its log is whole only then
        print("judging", flush=True)
        began = time.monotonic()
        gc.disable()  # millions of objects, none of them garbage
        evidence = ledger.read(directory, stack.database.url(), stack.broker.bootstrap, targets)
    checker = Checker(evidence, targets, timed=options.long, loose_s=0.0 if options.long else LOOSE_S)
    verdict = checker.judge()
    if not verdict.counts["deliveries expected"]:
        verdict.breach("nothing was to be delivered, so nothing is proved")
    if rest_s is None:
        verdict.breach("the stack did not come to rest")
    judged = report.Judged(options, checker, verdict, rest_s, time.monotonic() - began)
    report.show(judged)
    (directory / "result.json").write_text(json.dumps(report.as_dict(judged), indent=1))
    gc.enable()
    return verdict.counts["deliveries expected"], len(verdict.breaches)


def subscribe(stack: Stack, hooks: list[Hook]) -> tuple[dict[str, str], list[Target]]:
    """Create every webhook by the API. Returns the accounts' keys, and the webhooks."""
    with connect(stack) as connection:
        keys = {account: create_key(connection, account).key for account in {hook.account for hook in hooks}}
    targets = []
    for hook in hooks:
        body = {"name": f"hook {hook.number}", "url": stack.url_of(hook), "events": list(hook.events)}
        made = api(stack, keys[hook.account], "POST", "/webhooks", body)
        targets.append(
            Target(str(made["id"]), hook.number, hook.account, hook.events, hook.temper, str(made["secret"]))
        )
    time.sleep(2.0)  # every router has heard of them: within a second, says the contract
    return keys, targets


def torture(stack: Stack, options: Options, accounts: list[str], keys: dict[str, str], targets: list[Target]) -> None:
    """Let events flow and things fail until both are over."""
    with ExitStack() as files:

        def log(name: str) -> object:
            return files.enter_context((stack.directory / name).open("w", buffering=1))

        stream = Stream(stack.broker.bootstrap, options, accounts, log("events.jsonl"))  # type: ignore[arg-type]
        faults = Faults(stack, options.seed, long=options.long, log=log("faults.jsonl"))  # type: ignore[arg-type]
        for fault in plan_faults(options):
            faults.plan(fault)
        look = watch_disabled(stack, keys, targets, log("disabled.jsonl").write)  # type: ignore[attr-defined]
        others = Others(log("others.jsonl"))  # type: ignore[arg-type]
        others.start()
        files.callback(others.stop)
        stream.start()
        said = looked = time.monotonic()
        over = said + options.seconds + _OVER_S
        while stream.is_alive() or faults.busy:
            if time.monotonic() > over:
                raise RuntimeError(
                    f"events or faults are not over {_OVER_S:.0f} s after their time; see {stack.directory}/logs"
                )
            if not stream.is_alive():
                faults.wind_down()
            faults.step()
            stack.tend()
            if time.monotonic() - looked > 1.0:
                look()
                looked = time.monotonic()
            if time.monotonic() - said > 10.0:
                print(f"{stream.produced:,} events, {faults.begun.total()} faults", flush=True)
                said = time.monotonic()
            time.sleep(_TICK_S)
        if stream.error is not None:
            raise RuntimeError("the producer failed") from stream.error
        look()


def watch_disabled(
    stack: Stack, keys: dict[str, str], targets: list[Target], note: Callable[[str], object]
) -> Callable[[], None]:
    """Notes webhooks that were disabled, and enables them again by the API after a while."""
    since: dict[str, float] = {}
    accounts = {target.id: target.account for target in targets}

    def look() -> None:
        try:
            with connect(stack) as connection:
                rows = connection.execute(_DISABLED).fetchall()
        except psycopg.Error:
            return  # it is away; the next look finds them
        for webhook_id, disabled_at in rows:
            if webhook_id not in since:
                since[webhook_id] = time.monotonic()
                note(json.dumps(["disabled", webhook_id, disabled_at]) + "\n")
            elif time.monotonic() - since[webhook_id] > DISABLED_S:
                del since[webhook_id]
                api(stack, keys[accounts[str(webhook_id)]], "PATCH", f"/webhooks/{webhook_id}", {"isActive": True})
                note(json.dumps(["enabled", webhook_id, time.time()]) + "\n")

    return look


def come_to_rest(stack: Stack, within_s: float) -> float | None:
    """Heal everything and wait until no message waits. Seconds that took; None when it is not over in time."""
    began = time.monotonic()
    stack.receivers.heal()
    for service in stack.services:
        service.arm_file.unlink(missing_ok=True)
    stack.wait_ready(within_s)
    while time.monotonic() - began < within_s:
        stack.tend()
        left = ledger.unfinished(stack.broker.bootstrap)
        if not left:
            return time.monotonic() - began
        time.sleep(0.5)
    print("still unfinished:", left)
    return None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
