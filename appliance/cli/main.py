"""``ofswitch``: the commands and their arguments.

Invariant: exit status 0 means that what was asked for was done, 1 that it failed, 2 that the arguments or the configuration are
wrong. What a command needs is imported by the command, so that ``version``, ``check`` and ``show`` start quickly.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, NoReturn

import click

from appliance.cli.exit_status import EXIT_FAILURE

Command = Callable[..., Any]


def fail(text: str, status: int = EXIT_FAILURE) -> NoReturn:
    click.echo(text, err=True)
    raise SystemExit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """An OpenFlow 1.3 switch with an eBPF fast path and a slow path in Python."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


# ── the switch ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _configuration_flags(command: Command) -> Command:
    """One flag for each key of the configuration, named as the key is."""
    options = [
        click.option("--name", help="The switch's name; also names its control socket."),
        click.option("--datapath-id", help="16 hexadecimal digits, aa:bb:cc:dd:ee:ff:00:11, a MAC address or a number."),
        click.option("--fail-mode", metavar="secure|standalone", help="What to do while no controller is connected."),
        click.option("--protocols", metavar="VERSION[,...]", help="OpenFlow versions to offer: OpenFlow13."),
        click.option("--port", "ports", multiple=True, metavar="IFACE[=NUMBER]", help="A port. Repeat it for more."),
        click.option("--local", metavar="IFACE|none", help="This machine's own interface at port LOCAL, which the switch makes."),
        click.option("--hook", metavar="auto|xdp|xdp-generic|tc", help="Where the fast path meets the packets, for every port."),
        click.option(
            "--controller",
            "controllers",
            multiple=True,
            metavar="tcp:HOST[:PORT]",
            help="Connect to it; ssl: with TLS. May be repeated.",
        ),
        click.option(
            "--listen",
            multiple=True,
            metavar="ptcp:[PORT][:ADDRESS]",
            help="Let controllers connect; pssl: with TLS. May be repeated.",
        ),
        click.option("--private-key", metavar="FILE", help="The switch's own key, for TLS (PEM)."),
        click.option("--certificate", metavar="FILE", help="The switch's own certificate, for TLS (PEM)."),
        click.option("--ca-certificate", metavar="FILE", help="Whose certificates are trusted, for TLS (PEM)."),
        click.option("--app", "apps", multiple=True, metavar="FILE|MODULE", help="A Ryu app for the integrated controller."),
        click.option("--control-socket", metavar="PATH", help="Where `ofswitch show` and its like ask."),
        click.option("--plugin", "plugins", multiple=True, metavar="NAME|FOLDER/", help="A plug-in, or a folder of them."),
        click.option("--big-tcp", metavar="auto|off", help="TCP frames of up to 185 KB, where every port takes them."),
        click.option("--max-megaflows", type=int, metavar="N", help="Room in the fast path."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _overrides(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags as ``config.load`` takes them: what was not given is None."""
    apps = flags.pop("apps")
    protocols = flags.pop("protocols")
    given = {key: list(value) or None if isinstance(value, tuple) else value for key, value in flags.items()}
    given["integrated_controller"] = {"apps": tuple(apps)} if apps else None
    files = {name: given.pop(name) for name in ("private_key", "certificate", "ca_certificate")}
    given["tls"] = {name: file for name, file in files.items() if file is not None} or None
    given["protocols"] = protocols.split(",") if protocols is not None else None
    return given


@main.command()
@click.argument("config", required=False, type=click.Path())
@_configuration_flags
@click.option("-v", "--verbose", is_flag=True, help="Log every message and change.")
def run(config: str | None, verbose: bool, **flags: Any) -> None:
    """Run the switch until SIGTERM or Ctrl-C.

    CONFIG is a YAML file; every key of it has a flag, which overrides it.
    """
    from appliance.cli.run import run_switch

    raise SystemExit(run_switch(config, _overrides(flags), verbose=verbose))


@main.command()
@click.argument("config", required=False, type=click.Path())
@_configuration_flags
@as_json
def check(config: str | None, as_json: bool, **flags: Any) -> None:
    """Report every fault of a configuration, and touch nothing."""
    from appliance.cli.run import check_configuration

    raise SystemExit(check_configuration(config, _overrides(flags), as_json=as_json))


@main.command()
@click.argument("config", type=click.Path())
@click.option("--once", is_flag=True, help="Do not stay up. Exit 0 only if everything worked and nothing is left behind.")
def lab(config: str, once: bool) -> None:
    """Hosts in namespaces, the switch, and traffic.

    CONFIG is a lab's YAML file, for example configs/lab.yaml.
    """
    # Nothing is there yet that would have to be cleaned up, and in the middle of an import Python may lose what its handler raises.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from appliance.cli.lab import run_lab_command

        status = run_lab_command(config, once=once)
    finally:
        signal.signal(signal.SIGINT, before)
    raise SystemExit(status)


# ── asking a running switch ────────────────────────────────────────────────────────────────────────────────────────────
def _asks_a_switch(command: Command) -> Command:
    """Which switch, and how to show the answer."""
    for decorate in (
        as_json,
        click.option("--control-socket", metavar="PATH", help="The switch's control socket."),
        click.argument("name", required=False),
    ):
        command = decorate(command)
    return command


def _show(what: str, name: str | None, control_socket: str | None, as_json: bool, **arguments: Any) -> None:
    from appliance.agent.client import ControlClient, ControlError
    from appliance.cli.sockets import NoSwitch, find_socket

    try:
        with ControlClient(find_socket(name, control_socket)) as client:
            result = client.request(what, **{key: value for key, value in arguments.items() if value is not None})
    except (ControlError, NoSwitch) as error:
        fail(f"ofswitch: {error}")
    if as_json:
        import json

        click.echo(json.dumps(result, indent=2))
        return
    from appliance.cli import tables

    tables.console().print(tables.RENDERERS[what](result))


@main.command()
@_asks_a_switch
def show(name: str | None, control_socket: str | None, as_json: bool) -> None:
    """The switch, its controllers, each tier's share.

    NAME is needed only where several switches run.
    """
    _show("show", name, control_socket, as_json)


@main.command()
@_asks_a_switch
@click.option("--table", type=click.IntRange(0, 254), help="Only this flow table.")
@click.option("--limit", type=click.IntRange(0), help="At most so many (default: 1000).")
def flows(name: str | None, control_socket: str | None, as_json: bool, table: int | None, limit: int | None) -> None:
    """OpenFlow flow entries with their counters."""
    _show("flows", name, control_socket, as_json, table=table, limit=limit)


@main.command()
@_asks_a_switch
@click.option("--limit", type=click.IntRange(0), help="At most so many (default: 1000).")
def megaflows(name: str | None, control_socket: str | None, as_json: bool, limit: int | None) -> None:
    """What the fast path has installed."""
    _show("megaflows", name, control_socket, as_json, limit=limit)


@main.command()
@_asks_a_switch
def ports(name: str | None, control_socket: str | None, as_json: bool) -> None:
    """Ports, their hook, state and counters."""
    _show("ports", name, control_socket, as_json)


@main.command()
@_asks_a_switch
def plugins(name: str | None, control_socket: str | None, as_json: bool) -> None:
    """Plug-ins, what they count, and why one was left out."""
    _show("plugins", name, control_socket, as_json)


@main.command()
@as_json
def version(as_json: bool) -> None:
    """Versions of the program and of what it stands on."""
    from appliance.cli.versions import versions

    found = versions()
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    for what, which in found.items():
        click.echo(f"{what:<9} {which or '(not installed)'}")


if __name__ == "__main__":
    main()
