"""Runs a service in this process, with fault points and planted bugs patched in. Product code has none of them.

`python -P child.py services.dispatcher`, with TORTURE_ARM naming a file: when `point n` is written there, this process
kills itself the n-th time that it comes to that point. TORTURE_PLANT names a bug, TORTURE_SKEW_MS shifts the clock.
Every request says in a header which process made it, so that the checker need not guess. When the machine held the process
up goes to the file that TORTURE_PULSE names.
"""

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.torture import pulse

ARM = Path(os.environ.get("TORTURE_ARM", "/nonexistent"))
armed: list[Any] = ["", 0]  # a point's name, and how often it is yet to be passed


def watch() -> None:
    """Take over what the driver writes. Thread of its own."""
    while True:
        try:
            name, count = ARM.read_text().split()
            ARM.unlink()
            armed[:] = [name, int(count)]
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.02)


def reach(name: str) -> None:
    """The process is at this point: die here if that is armed."""
    if armed[0] != name:
        return
    armed[1] -= 1
    if armed[1] <= 0:
        firing = ARM.with_suffix(".firing")
        firing.write_text(f"{name} {time.time()}")
        firing.rename(ARM.with_suffix(".fired"))  # whole, whenever it is looked at
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: type, method: str, name: str) -> None:
    original = getattr(owner, method)

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        reach(name)
        return original(self, *args, **kwargs)

    setattr(owner, method, patched)


def around_async(owner: type, method: str, first: str, then: str) -> None:
    original = getattr(owner, method)

    async def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        reach(first)
        result = await original(self, *args, **kwargs)
        reach(then)
        return result

    setattr(owner, method, patched)


def dispatcher_points() -> None:
    from go2hooks.kafka.producer import LoopProducer
    from services.dispatcher.intake import Intake
    from services.dispatcher.keeper import Keeper
    from services.dispatcher.lookup import Lookup
    from services.dispatcher.pipeline import Pipeline
    from services.dispatcher.recorder import Recorder

    before(Pipeline, "_begin", "before_send")
    before(Pipeline, "_end", "after_answer")
    around_async(Recorder, "_write", "before_record", "after_record")
    before(Keeper, "retry", "before_retry")
    before(Intake, "store_offsets", "before_commit")
    before(Intake, "on_revoked", "on_revoke")
    before(Intake, "on_assigned", "on_assign")
    look_up, produce = Lookup.look_up, LoopProducer.produce

    async def patched_look_up(self: Any, items: Any) -> None:
        if items:
            reach("in_look_up")
        await look_up(self, items)

    def patched(self: Any, topic: str, key: str, value: bytes, on_kept: Callable[[], None], *rest: Any) -> None:
        def kept() -> None:
            reach("after_retry" if ".retry." in topic else "after_overflow")
            on_kept()

        produce(self, topic, key, value, kept, *rest)

    Lookup.look_up = patched_look_up  # type: ignore[method-assign]
    LoopProducer.produce = patched  # type: ignore[method-assign]


def sign_requests() -> None:
    """Let requests name this process, by TORTURE_NAME and its id."""
    from services.dispatcher import requests

    prepare, name = requests.prepare, f"{os.environ.get('TORTURE_NAME', '?')}/{os.getpid()}"

    def patched(*args: Any) -> Any:
        request = prepare(*args)
        return request._replace(headers=(*request.headers, ("X-Torture-Process", name)))

    requests.prepare = patched


def router_points() -> None:
    from services.router.router import Router
    from services.router.writing import Writer

    before(Writer, "write", "router_before_produce")
    before(Router, "on_revoked", "router_on_revoke")
    collect = Router._collect_finished

    def patched(self: Any) -> Any:
        if self._batches and not self._batches[0].unacknowledged:
            reach("router_after_produce")
        finished = collect(self)
        reach("router_before_commit")
        return finished

    Router._collect_finished = patched  # type: ignore[method-assign]


def plant_commit_before_record() -> None:
    """The offset counts as finished when the attempt begins."""
    from services.dispatcher.pipeline import Pipeline
    from services.dispatcher.work_item import WorkItem

    early: set[Any] = set()
    begin, finish = Pipeline._begin, WorkItem.finish

    def patched_begin(self: Any, item: Any, **kwargs: Any) -> None:
        item.partition.tracker.complete(item.position.offset)
        early.add(item.position)
        begin(self, item, **kwargs)

    def patched_finish(self: Any) -> None:
        if self.position in early:
            early.discard(self.position)
            self._leave_window()
        else:
            finish(self)

    Pipeline._begin = patched_begin  # type: ignore[method-assign]
    WorkItem.finish = patched_finish  # type: ignore[method-assign]


def plant_drop_on_rebalance() -> None:
    """What is dropped because its partition moves counts as finished."""
    from services.dispatcher.work_item import WorkItem

    drop = WorkItem.drop

    def patched(self: Any) -> None:
        self.partition.tracker.complete(self.position.offset)
        drop(self)

    WorkItem.drop = patched  # type: ignore[method-assign]


def plant_double_retry() -> None:
    """Each retry is written twice, and nobody notices."""
    from go2hooks.core.domain.duplicates import Claims
    from go2hooks.kafka.producer import LoopProducer
    from services.dispatcher.lookup import Lookup

    produce, look_up = LoopProducer.produce, Lookup.look_up

    def patched(self: Any, topic: str, key: str, value: bytes, *rest: Any) -> None:
        if ".retry." in topic:
            produce(self, topic, key, value, lambda: None, lambda _why: None)
        produce(self, topic, key, value, *rest)

    async def patched_look_up(self: Any, items: Any) -> None:
        asked = {item.delivery.id: item.delivery.attempt for item in items}

        async def nothing(keys: Any) -> Any:
            return {key: "retrying" for key in keys if key.attempt != asked[key.delivery_id]}

        self._find_states = nothing
        await look_up(self, items)

    LoopProducer.produce = patched  # type: ignore[method-assign]
    Lookup.look_up = patched_look_up  # type: ignore[method-assign]
    claim = Claims.claim

    def patched_claim(self: Any, *args: Any) -> Any:
        self.__init__()
        return claim(self, *args)

    Claims.claim = patched_claim  # type: ignore[method-assign]


def skew_clock(milliseconds: int) -> None:
    """Let the wall clock of this process be wrong by a constant."""
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + milliseconds / 1000
    time.time_ns = lambda: wall_ns() + milliseconds * 1_000_000


def main() -> None:
    module = sys.argv.pop(1)
    threading.Thread(target=watch, name="torture", daemon=True).start()
    if path := os.environ.get("TORTURE_PULSE"):
        pulse.start(Path(path), os.environ.get("TORTURE_NAME", "?"))
    if skew := int(os.environ.get("TORTURE_SKEW_MS", "0")):
        skew_clock(skew)
    if module == "services.dispatcher":
        dispatcher_points()
        sign_requests()
        plant = os.environ.get("TORTURE_PLANT")
        if plant:
            globals()[f"plant_{plant.replace('-', '_')}"]()
    elif module == "services.router":
        router_points()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
