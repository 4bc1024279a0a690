"""Starts Ryu apps and the OpenFlow listener that they share, on loopback, until a signal comes.

os-ken 4 has no ``osken-manager`` any more; this does its work. Invariant: either all apps run, or the process ends with one
clear message that names the app at fault.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import ipaddress
import logging
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.controller import ryu_alias

EXIT_STOPPED = 0
EXIT_CRASHED = 1
EXIT_USAGE = 2
EXIT_APP = 3
"""An app cannot be loaded or started: trying again without a change is no use."""
EXIT_LISTEN = 4
"""The address is in use."""

STOP_SECONDS = 2.0
PR_SET_PDEATHSIG = 1


class AppError(Exception):
    """An app cannot be loaded or started; the text names it and says why."""


# ── apps ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def check_app(app: str) -> str:
    """The app's name as AppManager wants it: an absolute path, or a module's name. Raises AppError if there is none."""
    if "," in app:
        raise AppError(f"{app}: a comma cannot be in an app's name; name each app by itself")
    path = Path(app)
    if path.suffix == ".py" or path.exists():
        try:
            compile(path.read_bytes(), str(path), "exec")
        except OSError as error:
            raise AppError(f"{app}: {error.strerror}") from error
        except (SyntaxError, ValueError) as error:
            raise AppError(f"{app}:{getattr(error, 'lineno', None) or 1}: {getattr(error, 'msg', error)}") from error
        return str(path.resolve())
    try:
        found = importlib.util.find_spec(app) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise AppError(f"{app}: no such file, and no module of that name")
    return app


def describe(app: str, error: Exception) -> str:
    """What went wrong while ``app`` was loaded, with the line of the app where it happened."""
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == app]
    where = f"{app}:{here[-1].lineno}" if here else app
    text = str(error)
    return f"{where}: cannot be used:\n{text}" if "\n" in text else f"{where}: {type(error).__name__}: {text}"


def _manager(named: Sequence[str]) -> Any:
    """An AppManager whose errors name the app. ``named`` are the apps of the command line: each of them must hold a RyuApp."""
    from ryu.base import app_manager  # only now: importing it starts the hub, and the alias must be there

    class Manager(app_manager.AppManager):  # type: ignore[misc]  # os-ken has no types
        def load_app(self, name: str) -> Any:
            try:
                app = super().load_app(name)
            except Exception as error:
                raise AppError(describe(name, error)) from error
            if app is None and name in named:
                raise AppError(f"{name}: holds no Ryu app (a class derived from app_manager.RyuApp)")
            return app

        def _instantiate(self, app_name: str | None, cls: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return super()._instantiate(app_name, cls, *args, **kwargs)
            except Exception as error:
                raise AppError(describe(app_name or cls.__module__, error)) from error

    app_manager.AppManager._instance = Manager()  # the singleton that apps ask for by get_instance
    return app_manager.AppManager.get_instance()


# ── running ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def run(address: str, port: int, apps: Sequence[str]) -> int:
    """Load the apps, listen, and stay until SIGTERM or SIGINT; returns an exit code."""
    os.environ["OSKEN_HUB_TYPE"] = "eventlet"  # what Ryu's apps are written for; os-ken reads it when it is imported
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    ryu_alias.install([str(Path(app).resolve().parent) for app in apps if Path(app).is_file()])
    from ryu import cfg
    from ryu.lib import hub

    hub.patch(thread=False)  # as ryu-manager does, so that an app's time.sleep does not stop the others

    names = [check_app(app) for app in apps]
    manager = _manager(names)
    manager.load_apps(names)
    cfg.CONF(args=[], project="ofswitch-controller", default_config_files=[], default_config_dirs=[])
    cfg.CONF.set_override("ofp_listen_host", address)
    cfg.CONF.set_override("ofp_tcp_listen_port", port)
    _check_free(address, port)
    contexts = manager.create_contexts()

    woken, wake = socket.socketpair()
    wake.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())  # a signal must end eventlet's wait, which Python would go on with

    services = manager.instantiate_apps(**contexts)
    if not services:
        raise AppError(f"{', '.join(apps)}: no app handles OpenFlow events, so nothing would listen")
    services += _rest_services(manager, address)
    for service in services:
        service.link(lambda _: wake.send(b"\0"))
    hub.sleep(0)  # the listener is one of the services: it begins now
    print(f"listening on {address} port {port}", flush=True)
    signalled = woken.recv(1) != b"\0"
    _stop(manager)
    return EXIT_STOPPED if signalled else EXIT_CRASHED


def _rest_services(manager: Any, address: str) -> list[Any]:
    """What serves HTTP for apps that ask for it (by ``ryu.app.wsgi``): as ryu-manager does, but on our address, not on all."""
    from ryu import cfg
    from ryu.lib import hub

    wsgi = sys.modules.get("ryu.app.wsgi") or sys.modules.get("os_ken.app.wsgi")
    if wsgi is None:
        return []
    cfg.CONF.set_override("wsapi_host", address)
    server = wsgi.start_service(manager)
    return [] if server is None else [hub.spawn(server)]


def _check_free(address: str, port: int) -> None:
    """Raises OSError if nobody can listen there. The hub would only log it, and go on with no listener."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        probe.listen()


def _stop(manager: Any) -> None:
    """Let the apps close, but not for ever."""
    from ryu.lib import hub

    try:
        with hub.Timeout(STOP_SECONDS):
            manager.close()
    except hub.Timeout:
        logging.getLogger("controller").warning("an app did not stop within %g s", STOP_SECONDS)


def die_with(parent: int) -> None:
    """Be killed when the process ``parent``, which started this one, ends for whatever reason (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        sys.exit(EXIT_STOPPED)


def _loopback(text: str) -> str:
    try:
        if ipaddress.ip_address(text).is_loopback:
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text} is no loopback address; give 127.0.0.1 or ::1")


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no TCP port; give a number from 1 to 65535")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code (EXIT_*)."""
    parser = argparse.ArgumentParser(
        prog="python -m appliance.controller", description="Run Ryu apps for a switch on this machine."
    )
    parser.add_argument("apps", nargs="+", metavar="APP", help="a Ryu app: a file, or a module's name")
    parser.add_argument("--port", type=_port, required=True, help="TCP port to listen on")
    parser.add_argument("--address", type=_loopback, default="127.0.0.1", help="loopback address to listen on (default 127.0.0.1)")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process, the one that started us, ends")
    parser.add_argument("--verbose", action="store_true", help="log what os-ken itself does")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        die_with(options.parent)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if not options.verbose:
        for name in ("os_ken", "ryu"):
            logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return run(options.address, options.port, options.apps)
    except AppError as error:
        print(f"controller: {error}", file=sys.stderr)
        return EXIT_APP
    except OSError as error:
        print(f"controller: cannot listen on {options.address} port {options.port}: {error.strerror}", file=sys.stderr)
        return EXIT_LISTEN
