"""What happens to the switch in a round. Each event draws what exactly, does it, and says it in words.

Invariant: what is drawn depends on the Random and on earlier draws alone, and not on how long anything takes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from soak import draw
from soak.controllers import MOST
from soak.network import CHANGING
from soak.rig import Rig
from soak.tables import Change

from appliance.model.actions import Output
from appliance.model.ports import PortConfig, PortNo
from appliance.openflow.messages import (
    DescRequest,
    FlowModFlags,
    FlowStatsRequest,
    GroupDescRequest,
    GroupStatsRequest,
    MeterConfigRequest,
    MeterStatsRequest,
    PacketOut,
    PortDescRequest,
    PortMod,
    PortStatsRequest,
    QueueStatsRequest,
    TableFeaturesRequest,
    TableStatsRequest,
)
from appliance.switch.ports import CONFIGURABLE

MOST_ENTRIES = 400
_CONFIGS = (PortConfig.NO_FWD, PortConfig.NO_RECV, PortConfig.NO_PACKET_IN, PortConfig.PORT_DOWN)
_DUMPS = (
    DescRequest(),
    FlowStatsRequest(),
    TableStatsRequest(),
    PortStatsRequest(),
    QueueStatsRequest(),
    GroupStatsRequest(),
    GroupDescRequest(),
    MeterStatsRequest(),
    MeterConfigRequest(),
    PortDescRequest(),
    TableFeaturesRequest(),
)
_COMMANDS = ("show", "flows", "megaflows", "ports", "plugins")

Event = Callable[[Rig, Random], str]


def change_tables(rig: Rig, rnd: Random) -> str:
    """Some changes at once. The switch refuses those that it must, and no others."""
    changes: list[Change] = []
    wanted: list[int] = []
    for change in _changes(rig, rnd):
        if not rig.tables.change(change):
            wanted.append(len(changes))
        changes.append(change)
    refused = rig.controllers.leader.refused(*changes)
    for number in set(wanted) ^ refused.keys():
        raise AssertionError(f"{changes[number]} {'was' if number in refused else 'was not'} refused: {refused.get(number)}")
    kinds = Counter(type(change).__name__ for change in changes)
    return f"{', '.join(f'{count} {kind}' for kind, count in kinds.items())}, of which {len(refused)} are refused"


def _changes(rig: Rig, rnd: Random) -> Iterator[Change]:
    """Each is drawn when those before it have been made."""
    if len(rig.tables.rows) > MOST_ENTRIES:
        yield draw.wipe(rnd.randrange(draw.TABLES))
    for _ in range(rnd.randint(1, 16)):
        kind = rnd.random()
        if kind < 0.02:
            yield draw.wipe(rnd.randrange(draw.TABLES))
        elif kind < 0.05:
            yield from draw.many(rnd)
        elif kind < 0.2:
            yield draw.group_mod(rnd, sorted(rig.tables.groups))
        elif kind < 0.28:
            yield draw.meter_mod(rnd, sorted(rig.tables.meters))
        else:
            mod = draw.flow_mod(rnd, sorted(rig.tables.groups), sorted(rig.tables.meters))
            # Nobody knows whether the switch still has an entry that is there for a second: then overlaps are not asked for.
            flags = mod.flags & ~FlowModFlags.CHECK_OVERLAP if rig.tables.short_lived else mod.flags
            yield mod._replace(flags=flags)


def send_packets(rig: Rig, rnd: Random) -> str:
    ports = rig.network.working
    packets = [(rnd.choice(ports), draw.frame(rnd)) for _ in range(rnd.randint(1, 60))] if ports else []
    for port, frame in packets:
        rig.network.send(port, frame)
    return f"{len(packets)} packets come in"


def packet_out(rig: Rig, rnd: Random) -> str:
    rig.network.until_known(rig.product.ports)
    port = rnd.choice((PortNo.TABLE, PortNo.TABLE, *CHANGING))
    in_port = rnd.choice([PortNo.CONTROLLER, *[port for port in CHANGING if rig.network.there[port]]])
    message = PacketOut(in_port=in_port, actions=(Output(port),), data=draw.frame(rnd))
    refused = rig.controllers.leader.refused(message)
    assert not refused, (message, refused)
    return f"a packet-out to {port:#x}"


def flood(rig: Rig, rnd: Random) -> str:
    ports = rig.network.working
    if not ports:
        return "nobody can flood the switch"
    port, packets = rnd.choice(ports), rnd.randint(1000, 8000)
    rig.flood(port, packets, str(rnd.getrandbits(32)))
    return f"port {port} is flooded with {packets} flows"


def dump(rig: Rig, rnd: Random) -> str:
    request = rnd.choice(_DUMPS)
    bodies = rig.controllers.leader.request(request)
    return f"{type(request).__name__}, {len(bodies)} replies"


def look(rig: Rig, rnd: Random) -> str:
    command = rnd.choice(_COMMANDS)
    rig.product.ask(command)
    return f"ofswitch {command}"


def change_port(rig: Rig, rnd: Random) -> str:
    port, removes = rnd.choice(CHANGING), rnd.random() < 0.4
    if not rig.network.there[port]:
        rig.network.restore(port)
        return f"port {port} is there again"
    if removes:
        rig.network.remove(port)
        return f"port {port} goes away"
    up = not rig.network.up[port]
    rig.network.set_link(port, up)
    return f"port {port} is {'up' if up else 'down'}"


def configure_port(rig: Rig, rnd: Random) -> str:
    port = rnd.choice(CHANGING)
    config = rnd.choice((PortConfig.NONE, PortConfig.NONE, *_CONFIGS))
    if not rig.network.there[port]:
        return f"port {port} is not there to be configured"
    rig.network.until_known(rig.product.ports)
    address = bytes.fromhex(rig.network.host(port).switch_mac.replace(":", ""))
    refused = rig.controllers.leader.refused(PortMod(port, address, config, CONFIGURABLE))
    assert not refused, refused
    rig.network.configs[port] = config
    return f"port {port} is configured {config!r}"


def change_controllers(rig: Rig, rnd: Random) -> str:
    controllers = rig.controllers
    kind = rnd.random()
    if kind < 0.1:
        controllers.go_all()
        time.sleep(rnd.random())
        controllers.come()
        return "all controllers go, and one comes"
    if kind < 0.4 and len(controllers) > 1:
        number = rnd.randrange(len(controllers))
        controllers.go(number)
        return f"controller {number} goes"
    if kind < 0.6 and len(controllers) < MOST:
        controllers.come()
        return f"a controller comes, the {len(controllers)}th"
    return controllers.change_role(rnd)


def pause(rig: Rig, rnd: Random) -> str:
    seconds = rnd.random()
    time.sleep(seconds)
    return f"{seconds:.1f} s go by"


def crash(rig: Rig, rnd: Random) -> str:
    """The agent is killed; its programs go on. A new one is given the tables again, and takes over."""
    alone, changes = rnd.random(), rnd.random() < 0.5
    rig.kill()
    time.sleep(alone)
    changed = change_port(rig, rnd) if changes else "nothing"
    for port in CHANGING:
        if not rig.network.there[port]:
            rig.network.restore(port)
        rig.network.configs[port] = PortConfig.NONE
    rig.start()
    rig.product.until_taken_over()
    return f"the agent is killed and started again; meanwhile: {changed}"


OFTEN: dict[Event, int] = {
    change_tables: 10,
    send_packets: 6,
    packet_out: 2,
    flood: 1,
    dump: 4,
    look: 2,
    change_port: 2,
    configure_port: 1,
    change_controllers: 2,
    pause: 2,
}
"""How often each happens, in proportion. ``crash`` is apart."""


def drawn(rnd: Random, *, crashes: bool) -> list[Event]:
    """What happens in a round; ``crashes``: maybe the agent dies."""
    events = rnd.choices(list(OFTEN), list(OFTEN.values()), k=rnd.randint(8, 24))
    if crashes and rnd.random() < 0.3:
        events.insert(rnd.randrange(len(events)), crash)
    return events
