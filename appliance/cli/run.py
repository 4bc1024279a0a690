"""``ofswitch run`` and ``ofswitch check``."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from typing import Any

import click

from appliance.cli.exit_status import EXIT_FAILURE, EXIT_USAGE
from appliance.config import Config, ConfigError, is_lab, load, load_lab
from appliance.ports import interface_names

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def print_faults(error: ConfigError) -> None:
    for fault in error.faults:
        click.echo(str(fault), err=True)
    number = len(error.faults)
    click.echo(f"ofswitch: {number} fault{'s' if number != 1 else ''}", err=True)


def check_configuration(path: str | None, overrides: dict[str, Any], *, as_json: bool) -> int:
    """Exit status."""
    try:
        if path is not None and is_lab(path):
            load_lab(path)
        else:
            load(path, overrides, interface_names)
    except ConfigError as error:
        if as_json:
            faults = [{"file": item.file, "line": item.line, "column": item.column, "text": item.text} for item in error.faults]
            click.echo(json.dumps({"ok": False, "faults": faults}, indent=2))
        else:
            print_faults(error)
        return EXIT_USAGE
    click.echo(json.dumps({"ok": True, "faults": []}, indent=2) if as_json else f"{path or 'the flags'}: no faults")
    return 0


def run_switch(path: str | None, overrides: dict[str, Any], *, verbose: bool) -> int:
    """Exit status, once the switch has stopped."""
    logging.basicConfig(format=LOG_FORMAT, stream=sys.stderr, level=logging.INFO)
    logging.getLogger("ofswitch").setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        config = load(path, overrides, interface_names)
    except ConfigError as error:
        print_faults(error)
        return EXIT_USAGE
    from appliance.cli.preflight import problems

    found = problems()
    if found:
        for problem in found:
            click.echo(f"ofswitch: {problem}", err=True)
        return EXIT_FAILURE
    return _serve(config)


def _serve(config: Config) -> int:
    """A signal is told through a pipe: the agent then stops at once, where a plain handler would wait for its next event."""
    from appliance.agent.agent import Agent, AgentError
    from appliance.agent.control import ControlSocketError
    from appliance.agent.green import spawn, wait_readable
    from appliance.agent.links import KernelLinks
    from appliance.datapath.bpf import BpfDatapath
    from appliance.datapath.driver import DatapathError
    from appliance.datapath.loader import Sizes

    stop_asked, ask_to_stop = os.pipe()
    try:
        # The fast path's map has a power of two of slots; the switch itself keeps to the configured number.
        datapath = BpfDatapath(Sizes(megaflows=1 << (config.max_megaflows - 1).bit_length()))
        agent = Agent(config, datapath, KernelLinks())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: os.write(ask_to_stop, b"."))

        def stop_when_asked() -> None:
            wait_readable(stop_asked)
            agent.stop()

        spawn(stop_when_asked)
        agent.run()
    except (DatapathError, AgentError, ControlSocketError) as error:
        click.echo(f"ofswitch: {error}", err=True)
        return EXIT_FAILURE
    return 0
