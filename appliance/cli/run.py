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
from appliance.config import Config, ConfigError, Fault, find_plugins, is_lab, load, load_lab
from appliance.model.plugin import PluginFile
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
        config = load_lab(path).config if path is not None and is_lab(path) else load(path, overrides, interface_names)
        _check_certificates(config, path)
        _check_plugins(config, path)
    except ConfigError as error:
        if as_json:
            faults = [{"file": item.file, "line": item.line, "column": item.column, "text": item.text} for item in error.faults]
            click.echo(json.dumps({"ok": False, "faults": faults}, indent=2))
        else:
            print_faults(error)
        return EXIT_USAGE
    click.echo(json.dumps({"ok": True, "faults": []}, indent=2) if as_json else f"{path or 'the flags'}: no faults")
    return 0


def _check_certificates(config: Config, path: str | None) -> None:
    """Raises ConfigError if the switch could not use its certificates."""
    if config.tls is not None:
        from appliance.agent.tls import Certificates, TlsError

        try:
            Certificates(config.tls)
        except TlsError as error:
            raise ConfigError([Fault(path or "command line", 0, 0, f"tls: {error}")]) from error


def _check_plugins(config: Config, path: str | None) -> None:
    """Raises ConfigError if one would be left out, as far as that can be told without compiling it."""
    origin = path or "command line"
    found = find_plugins(config.plugins)
    faults = [Fault(origin, 0, 0, f"plug-in {file.name}: {file.fault}") for file in found if file.fault]
    if faults:
        raise ConfigError(faults)


def run_switch(path: str | None, overrides: dict[str, Any], *, verbose: bool) -> int:
    """Exit status, once the switch has stopped."""
    logging.basicConfig(format=LOG_FORMAT, stream=sys.stderr, level=logging.INFO)
    logging.getLogger("ofswitch").setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        config = load(path, overrides, interface_names)
        _check_certificates(config, path)
        plugins = find_plugins(config.plugins)
    except ConfigError as error:
        print_faults(error)
        return EXIT_USAGE
    from appliance.cli.preflight import problems

    found = problems()
    if found:
        for problem in found:
            click.echo(f"ofswitch: {problem}", err=True)
        return EXIT_FAILURE
    return _serve(config, plugins)


def _serve(config: Config, plugins: tuple[PluginFile, ...]) -> int:
    """A signal is told through a pipe: the agent then does it at once, where a plain handler would wait for its next event.

    SIGHUP has the certificates read again; without any it ends the switch, as the end of its terminal should.
    """
    from appliance.agent.agent import Agent, AgentError
    from appliance.agent.garbage import collect_garbage
    from appliance.agent.green import spawn, wait_readable
    from appliance.agent.links import KernelLinks
    from appliance.agent.unix_socket import UnixSocketError
    from appliance.datapath.bpf import BpfDatapath
    from appliance.datapath.driver import DatapathError
    from appliance.datapath.loader import Sizes

    signalled, tell = os.pipe()
    try:
        # The fast path's map has a power of two of slots; the switch itself keeps to the configured number.
        datapath = BpfDatapath(Sizes.for_megaflows(config.max_megaflows), plugins=plugins)
        agent = Agent(config, datapath, KernelLinks())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.write(tell, bytes([number])))

        def follow_signals() -> None:
            while True:
                wait_readable(signalled)
                if os.read(signalled, 1)[0] == signal.SIGHUP and agent.certificates is not None:
                    agent.certificates.reload()
                else:
                    agent.stop()

        spawn(follow_signals)
        spawn(collect_garbage, lambda: sum(agent.switch.upcalls.values()))
        agent.run()
    except (DatapathError, AgentError, UnixSocketError) as error:
        click.echo(f"ofswitch: {error}", err=True)
        return EXIT_FAILURE
    return 0
