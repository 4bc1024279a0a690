"""One shard, in a process and a network namespace of its own: links, target, os-ken as controller, the tester.

    python -m conformance.shard  < plan.json

`shards.py` starts it, with its plan on standard input; every outcome goes to standard output as a line of JSON, at once.

Invariant: whichever way this process ends, its target and its namespace end with it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance import cases
from conformance.links import enter_own_namespace, make_links
from conformance.outcome import Outcome
from conformance.targets import TARGETS, Target
from conformance.wire import Wire

CONTROLLER_PORT = 6653
"""In a namespace of its own: nobody else can have it."""

TARGET_DATAPATH_ID = 0x07A6
CONNECT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``cases``: their names, in the order in which they are run; ``folder``: where they are. ``flags`` are more ones for the
    target's command line. The rest is as in headless.HeadlessTester.
    """

    version: str
    folder: str
    target: str
    cases: Sequence[str]
    settle: float = 1.0
    pause: float = 0.0
    warm: bool = False
    retries: int = 0
    flags: Sequence[str] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with os.fdopen(os.dup(1), "w", buffering=1) as up, tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        os.dup2(2, 1)  # whatever the tool prints is no outcome
        enter_own_namespace()
        target_ports, tester_ports = make_links()
        kind = TARGETS[plan.target]
        target = kind(target_ports, f"tcp:127.0.0.1:{CONTROLLER_PORT}", TARGET_DATAPATH_ID, Path(folder), plan.flags)
        try:
            _run(plan, target, Wire(tester_ports), lambda outcome: print(outcome.to_json(), file=up))
        finally:
            target.stop()


def _run(plan: Plan, target: Target, wire: Wire, report: Callable[[Outcome], None]) -> None:
    by_name = {case.name: case for case in cases.load(Path(plan.folder))}
    os.environ["OSKEN_HUB_TYPE"] = "eventlet"
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING)
    from os_ken.lib import hub

    hub.patch()
    from os_ken import cfg, flags  # noqa: F401  (flags registers the tester's options)
    from os_ken.base.app_manager import AppManager
    from os_ken.controller import controller, ofp_handler  # noqa: F401  (controller registers the listener's)

    version = f"openflow{plan.version}"
    arguments = {
        "ofp-tcp-listen-port": CONTROLLER_PORT,
        "ofp-listen-host": "127.0.0.1",
        "test-switch-target": f"{TARGET_DATAPATH_ID:x}",
        "test-switch-target-version": version,
        "test-switch-tester-version": version,
        "test-switch-dir": plan.folder,
    }
    cfg.CONF(args=[word for key, value in arguments.items() for word in (f"--{key}", str(value))], project="os_ken")
    from conformance.headless import HeadlessTester

    manager = AppManager.get_instance()
    server = manager.instantiate(ofp_handler.OFPHandler)
    app = manager.instantiate(
        HeadlessTester,
        cases=[by_name[name] for name in plan.cases],
        folder=plan.folder,
        wire=wire,
        report=report,
        revive=lambda: _revive(target),
        settle=plan.settle,
        pause=plan.pause,
        warm=plan.warm,
        retries=plan.retries,
        connect_seconds=CONNECT_SECONDS,
    )
    server.start()
    app.start()
    target.start()
    app.test_thread.wait()


def _revive(target: Target) -> str:
    words = target.last_words()
    if target.alive():
        return f"it runs; {words}"
    target.stop()
    target.start()
    return f"it died, and was started again; {words}"


if __name__ == "__main__":
    main()
