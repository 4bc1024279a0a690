"""MAC learning, and what a learning switch does with a packet."""

from __future__ import annotations

from appliance.model.fields import ETH_DST, ETH_SRC, IN_PORT, VLAN_PRESENT, VLAN_VID
from appliance.model.megaflow import Flood, Forward
from appliance.model.ports import PortNo
from appliance.pipeline.mac_table import MacChange, MacTable, normal

A, B = 0x02000000000A, 0x02000000000B
BROADCAST = 0xFFFFFFFFFFFF


def key(port: int, src: int, dst: int, vlan: int | None = None) -> int:
    made = ETH_DST.put(ETH_SRC.put(IN_PORT.put(0, port), src), dst)
    return made if vlan is None else VLAN_VID.put(made, vlan | VLAN_PRESENT)


def test_an_unknown_address_is_flooded_and_a_known_one_gets_its_port() -> None:
    table = MacTable()
    assert normal(key(1, A, B), table, 0.0).actions == (Flood(),)
    assert table.learn(key(2, B, A), 0.0) == MacChange(0, B, 2, None)
    translation = normal(key(1, A, B), table, 1.0)
    assert translation.actions == (Forward(2),)
    assert translation.mask == IN_PORT.mask | ETH_SRC.mask | ETH_DST.mask | VLAN_VID.mask
    assert translation.normal_keys == (key(1, A, B),)


def test_nothing_goes_back_where_it_came_from() -> None:
    table = MacTable()
    table.learn(key(2, B, A), 0.0)
    assert normal(key(2, A, B), table, 1.0).actions == ()


def test_groups_are_flooded_but_link_local_ones_stay_here() -> None:
    table = MacTable()
    assert normal(key(1, A, BROADCAST), table, 0.0).actions == (Flood(),)
    for reserved in (0x0180C2000000, 0x0180C200000E):
        assert normal(key(1, A, reserved), table, 0.0).actions == ()
    assert normal(key(1, A, 0x0180C2000010), table, 0.0).actions == (Flood(),)


def test_vlans_are_apart_and_priority_tags_are_untagged() -> None:
    table = MacTable()
    table.learn(key(2, B, A, vlan=7), 0.0)
    assert normal(key(1, A, B, vlan=7), table, 0.0).actions == (Forward(2),)
    assert normal(key(1, A, B, vlan=8), table, 0.0).actions == (Flood(),)
    assert normal(key(1, A, B), table, 0.0).actions == (Flood(),)
    table.learn(key(3, B, A), 0.0)
    assert normal(key(1, A, B, vlan=0), table, 0.0).actions == (Forward(3),)


def test_looking_up_learns_nothing() -> None:
    table = MacTable()
    normal(key(1, A, B), table, 0.0)
    assert len(table) == 0


def test_group_senders_and_packets_from_no_port_teach_nothing() -> None:
    table = MacTable()
    assert table.learn(key(1, A | 1 << 40, B), 0.0) is None
    assert table.learn(key(PortNo.CONTROLLER, A, B), 0.0) is None
    assert table.learn(key(0, A, B), 0.0) is None
    assert len(table) == 0


def test_the_machine_itself_is_learned_at_the_local_port() -> None:
    table = MacTable()
    assert table.learn(key(PortNo.LOCAL, A, B), 0.0) == MacChange(0, A, PortNo.LOCAL, None)
    assert normal(key(1, B, A), table, 1.0).actions == (Forward(PortNo.LOCAL),)


def test_a_move_is_reported_once_with_what_it_affects() -> None:
    table = MacTable()
    table.learn(key(1, A, B, vlan=7), 0.0)
    assert table.learn(key(1, A, B, vlan=7), 1.0) is None
    change = table.learn(key(3, A, B, vlan=7), 2.0)
    assert change == MacChange(7, A, 3, 1)
    assert change.affects(key(2, B, A, vlan=7)), "it sends to the old port"
    assert change.affects(key(1, A, B, vlan=7)), "its packets would not show a move back"
    assert not change.affects(key(2, B, A, vlan=8))
    assert not change.affects(key(2, B, B, vlan=7))
    assert table.learn(key(3, A, B, vlan=7), 3.0) is None


def test_ageing() -> None:
    table = MacTable(ageing_time=300.0)
    table.learn(key(1, A, B), 0.0)
    table.learn(key(2, B, A), 100.0)
    assert table.look_up(0, A, 299.9) == 1
    assert table.look_up(0, A, 300.0) is None
    assert table.expire(299.9) == []
    assert table.expire(300.0) == [MacChange(0, A, None, 1)]
    assert len(table) == 1
    assert table.learn(key(1, A, B), 301.0) == MacChange(0, A, 1, None)


def test_an_address_that_had_aged_is_learned_anew() -> None:
    table = MacTable(ageing_time=300.0)
    table.learn(key(1, A, B), 0.0)
    assert table.learn(key(1, A, B), 400.0) == MacChange(0, A, 1, 1), "packets to it were flooded meanwhile"


def test_the_fast_path_keeps_an_address_alive() -> None:
    table = MacTable(ageing_time=300.0)
    table.learn(key(1, A, B), 0.0)
    table.refresh(key(1, A, B), 250.0)
    table.refresh(key(1, A, B), 200.0)
    assert table.look_up(0, A, 549.0) == 1
    table.refresh(key(2, A, B), 900.0)
    assert table.look_up(0, A, 551.0) is None, "a megaflow from another port says nothing"
    table.refresh(key(1, B, A), 900.0)
    assert len(table) == 1


def test_the_table_is_bounded_and_the_one_not_seen_for_longest_makes_room() -> None:
    table = MacTable(max_addresses=3)
    for number in range(3):
        table.learn(key(1, number, B), float(number))
    table.learn(key(1, 0, B), 3.0)
    table.refresh(key(1, 1, B), 4.0)
    table.learn(key(1, 9, B), 5.0)
    assert len(table) == 3
    assert table.look_up(0, 2, 5.0) is None
    assert [table.look_up(0, mac, 5.0) for mac in (0, 1, 9)] == [1, 1, 1]


def test_a_port_that_goes_takes_its_addresses_along() -> None:
    table = MacTable()
    table.learn(key(1, A, B), 0.0)
    table.learn(key(2, B, A), 0.0)
    assert table.forget_port(1) == [MacChange(0, A, None, 1)]
    assert table.look_up(0, B, 0.0) == 2
