"""The classifier against a sorted list, and what it says it consulted: enough, and no more than it takes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from support import pipeline_cases as cases

from appliance.model.fields import BY_NAME, IN_PORT, KEY_MASK, METADATA
from appliance.model.match import Match
from appliance.pipeline.classifier import Classifier
from appliance.pipeline.flow_table import FlowEntry


class SortedList:
    """The obvious classifier: rules by falling priority, the first that matches wins."""

    def __init__(self) -> None:
        self.rules: list[FlowEntry] = []

    def insert(self, rule: FlowEntry) -> FlowEntry | None:
        old = next((other for other in self.rules if (other.match, other.priority) == (rule.match, rule.priority)), None)
        if old is not None:
            self.rules.remove(old)
        self.rules.append(rule)
        self.rules.sort(key=lambda other: -other.priority)
        return old

    def winners(self, key: int) -> list[FlowEntry]:
        """Those with the highest priority of the rules that match."""
        matching = [rule for rule in self.rules if rule.match.matches(key)]
        return [rule for rule in matching if rule.priority == matching[0].priority]


def changed(rnd: Random, classifier: Classifier[FlowEntry], model: SortedList) -> None:
    """One insertion or removal, in both."""
    if model.rules and rnd.random() < 0.4:
        rule = rnd.choice(model.rules)
        model.rules.remove(rule)
        classifier.remove(rule)
        return
    match = rnd.choice(model.rules).match if model.rules and rnd.random() < 0.2 else cases.match(rnd)
    rule = FlowEntry(rnd.randrange(6), match)
    assert classifier.insert(rule) is model.insert(rule)


@given(cases.RANDOMS)
def test_lookup_finds_what_a_sorted_list_finds(rnd: Random) -> None:
    classifier: Classifier[FlowEntry] = Classifier()
    model = SortedList()
    for _ in range(rnd.randrange(40)):
        changed(rnd, classifier, model)
        key = cases.flow_key(rnd)
        found, consulted = classifier.lookup(key)
        winners = model.winners(key)
        assert found in winners if winners else found is None
        known = rnd.choice((0, METADATA.mask | IN_PORT.mask, cases.subset(rnd, KEY_MASK)))
        answer = classifier.lookup(key, known)
        assert answer[0] is found
        for _ in range(3):
            assert classifier.lookup(cases.flip(rnd, key, ~consulted)) == (found, consulted)
            assert classifier.lookup(cases.flip(rnd, key, ~(answer[1] | known)), known) == answer
    assert len(classifier) == len(model.rules)
    assert set(classifier) == set(model.rules)
    assert set(classifier.masks) == {rule.match.mask for rule in model.rules}


@given(cases.RANDOMS)
def test_selections_are_what_match_says_of_each_rule(rnd: Random) -> None:
    classifier: Classifier[FlowEntry] = Classifier()
    model = SortedList()
    for _ in range(rnd.randrange(40)):
        changed(rnd, classifier, model)
    asked, priority = cases.match(rnd), rnd.randrange(6)
    assert set(classifier.covered_by(asked)) == {rule for rule in model.rules if asked.covers(rule.match)}
    assert set(classifier.overlapping(asked, priority)) == {
        rule for rule in model.rules if rule.priority == priority and asked.overlaps(rule.match)
    }
    for rule in model.rules:
        assert classifier.find(rule.match, rule.priority) is rule
    assert (classifier.find(asked, priority) is not None) == any(
        (rule.match, rule.priority) == (asked, priority) for rule in model.rules
    )


@given(cases.RANDOMS)
def test_only_the_very_rule_can_be_removed(rnd: Random) -> None:
    classifier: Classifier[FlowEntry] = Classifier()
    rule = FlowEntry(1, cases.match(rnd))
    classifier.insert(rule)
    with pytest.raises(KeyError):
        classifier.remove(FlowEntry(1, rule.match))
    classifier.remove(rule)
    with pytest.raises(KeyError):
        classifier.remove(rule)
    assert not len(classifier)
    assert classifier.lookup(rule.match.value) == (None, 0)


# ── a world so small that every key can be tried ───────────────────────────────────────────────────────────────────────
SMALL = {"metadata": 1, "in_port": 1, "eth_type": 1, "eth_dst": 1, "ip_proto": 1, "ipv4_src": 2, "ipv4_dst": 3, "tcp_dst": 2}
"""How many of the upper bits of each field there are."""
SMALL_BITS = [1 << BY_NAME[name].shift + BY_NAME[name].bits - 1 - at for name, bits in SMALL.items() for at in range(bits)]
SMALL_KEYS = [sum(bit for at, bit in enumerate(SMALL_BITS) if number >> at & 1) for number in range(1 << len(SMALL_BITS))]


def small_mask(rnd: Random) -> int:
    """Fields as a whole and prefixes of addresses and ports, or any bits of all."""
    if rnd.random() < 0.2:
        return rnd.choice(SMALL_KEYS) & rnd.choice(SMALL_KEYS)
    mask = 0
    for name in rnd.sample(tuple(SMALL), rnd.randint(0, 4)):
        mask |= prefix(name, rnd.randint(1, SMALL[name]))
    return mask


@given(cases.RANDOMS)
@settings(max_examples=settings.default.max_examples)
def test_every_key_of_a_small_world_gets_the_answer_of_its_region(rnd: Random) -> None:
    """Exhaustively: the keys that agree in the bits consulted are those that get that answer, before changes and after."""
    classifier: Classifier[FlowEntry] = Classifier()
    model = SortedList()
    masks = [small_mask(rnd) for _ in range(rnd.randint(1, 6))]
    for _ in range(3):
        for _ in range(rnd.randint(1, 12)):
            mask = rnd.choice(masks)
            rule = FlowEntry(rnd.randrange(6), Match((), rnd.choice(SMALL_KEYS) & mask, mask))
            assert classifier.insert(rule) is model.insert(rule)
        for rule in rnd.sample(model.rules, rnd.randint(0, len(model.rules) // 2)):
            model.rules.remove(rule)
            classifier.remove(rule)
        known = rnd.choice((0, IN_PORT.mask | METADATA.mask, rnd.choice(SMALL_KEYS)))
        answers = {key: classifier.lookup(key, known) for key in SMALL_KEYS}
        regions: dict[tuple[int, int], tuple[FlowEntry | None, int]] = {}
        sizes: dict[tuple[int, int], int] = {}
        for key, answer in answers.items():
            winners = model.winners(key)
            assert answer[0] in winners if winners else answer[0] is None
            region = answer[1] | known, key & (answer[1] | known)
            assert regions.setdefault(region, answer) == answer
            sizes[region] = sizes.get(region, 0) + 1
        for (mask, _), size in sizes.items():
            # All keys of the region gave this answer, or another one would have the same bits and be short of one.
            assert size == len(SMALL_KEYS) >> sum(1 for bit in SMALL_BITS if bit & mask)
        assert sum(sizes.values()) == len(SMALL_KEYS)


# ── no more than it takes ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["ipv4_dst", "ipv6_src", "tcp_dst"])
@given(rnd=cases.RANDOMS)
def test_the_shortest_prefix_that_shows_it_is_consulted(name: str, rnd: Random) -> None:
    """A table of prefixes, of which the longest wins: all keys with the same upper bits must have the same winner, and one bit
    less would not do."""
    field = BY_NAME[name]
    classifier: Classifier[FlowEntry] = Classifier()
    rules: list[FlowEntry] = []
    origin = rnd.getrandbits(field.bits)
    for _ in range(rnd.randrange(30)):
        length = rnd.randrange(field.bits + 1)
        mask = (1 << length) - 1 << field.bits - length
        value = (origin ^ rnd.getrandbits(field.bits) >> rnd.randrange(field.bits)) & mask
        rule = FlowEntry(length, Match((), value << field.shift, mask << field.shift))
        old = classifier.insert(rule)
        rules = [other for other in rules if other is not old] + [rule]
        if rnd.random() < 0.2:
            classifier.remove(rules.pop(rnd.randrange(len(rules))))
    address = origin ^ rnd.getrandbits(field.bits) >> rnd.randrange(field.bits)
    found, consulted = classifier.lookup(address << field.shift)
    longer = [rule for rule in rules if found is None or rule.priority > found.priority]
    shortest = next(
        length
        for length in range(0 if found is None else found.priority, field.bits + 1)
        if not any((rule.match.value ^ address << field.shift) & rule.match.mask & prefix(name, length) == 0 for rule in longer)
    )
    assert consulted == prefix(name, shortest)


def prefix(name: str, length: int) -> int:
    """The first bits of a field, in the key."""
    field = BY_NAME[name]
    return (1 << length) - 1 << field.shift + field.bits - length


def rule_of(priority: int, **fields: int | tuple[int, int]) -> FlowEntry:
    """With values, or values and the lengths of their prefixes."""
    value = mask = 0
    for name, wanted in fields.items():
        number, length = wanted if isinstance(wanted, tuple) else (wanted, BY_NAME[name].bits)
        mask |= prefix(name, length)
        value |= number << BY_NAME[name].shift
    return FlowEntry(priority, Match((), value, mask))


def key_of(**fields: int) -> int:
    return sum(value << BY_NAME[name].shift for name, value in fields.items())


def mask_of(*names: str) -> int:
    return sum(BY_NAME[name].mask for name in names)


KNOWN = IN_PORT.mask | METADATA.mask
TCP = {"eth_type": 0x0800, "ip_proto": 6}


def consulted(rules: list[FlowEntry], key: int, known: int = KNOWN) -> int:
    classifier: Classifier[FlowEntry] = Classifier()
    for rule in rules:
        classifier.insert(rule)
    return classifier.lookup(key, known)[1]


def test_a_packet_of_another_kind_depends_on_its_kind_alone() -> None:
    rules = [rule_of(2, **TCP, ipv4_dst=1, tcp_dst=80), rule_of(2, **TCP, ipv4_dst=2, tcp_dst=22), rule_of(1)]
    assert consulted(rules, key_of(eth_type=0x0806, ipv4_dst=1)) == mask_of("eth_type")
    assert consulted(rules, key_of(eth_type=0x0800, ip_proto=17, ipv4_dst=1)) == mask_of("eth_type", "ip_proto")


def test_an_address_that_no_rule_has_makes_ports_irrelevant() -> None:
    rules = [rule_of(2, **TCP, ipv4_dst=0x0A000001, tcp_dst=80), rule_of(2, **TCP, ipv4_dst=0x0A000002, tcp_dst=22), rule_of(1)]
    other = key_of(**TCP, ipv4_dst=0x0B000001, tcp_dst=80)
    assert consulted(rules, other) == mask_of("eth_type", "ip_proto") | prefix("ipv4_dst", 8)


def test_a_port_that_no_rule_has_is_told_by_its_first_bits() -> None:
    rules = [rule_of(2, **TCP, tcp_dst=80), rule_of(2, **TCP, tcp_dst=443), rule_of(1)]
    assert consulted(rules, key_of(**TCP, tcp_dst=40000)) == mask_of("eth_type", "ip_proto") | prefix("tcp_dst", 1)
    assert consulted(rules, key_of(**TCP, tcp_dst=81)) == mask_of("eth_type", "ip_proto", "tcp_dst")


def test_two_protocols_in_one_mask_are_told_apart_first() -> None:
    rules = [rule_of(2, **TCP, tcp_dst=80), rule_of(2, eth_type=0x0800, ip_proto=17, udp_dst=53), rule_of(1)]
    icmp = key_of(eth_type=0x0800, ip_proto=1, icmpv4_type=8)
    assert consulted(rules, icmp) == mask_of("eth_type", "ip_proto")


def test_fields_that_are_neither_addresses_nor_ports_count_as_a_whole() -> None:
    """A mask for each bit of a MAC address would fill the fast path with masks."""
    rules = [rule_of(2, eth_dst=0x020000000001), rule_of(1)]
    assert consulted(rules, key_of(eth_dst=0x030000000001)) == mask_of("eth_dst")


def test_rules_that_are_ruled_out_by_what_is_known_add_nothing() -> None:
    others = [rule_of(9, **TCP, ipv4_src=7, tcp_dst=22), rule_of(9, **TCP, ipv4_src=8, tcp_dst=65513)]
    key = key_of(**TCP, ipv4_src=7, tcp_dst=80)
    assert consulted([*others, rule_of(5, **TCP, tcp_dst=80)], key) == mask_of("eth_type", "ip_proto", "tcp_dst"), "as the winner"
    assert consulted(others, key, KNOWN | mask_of("tcp_dst")) == 0
    assert consulted(others, key_of(**TCP, ipv4_src=7, tcp_dst=65513), KNOWN | mask_of("tcp_dst")) & mask_of("ipv4_src")


def test_what_is_known_rules_out_rules_before_anything_else_is_asked() -> None:
    rules = [rule_of(9, **TCP, ipv4_src=7, tcp_dst=22), rule_of(9, **TCP, ipv4_src=8, tcp_dst=65513)]
    assert consulted(rules, key_of(eth_type=0x0800, ip_proto=17), KNOWN | mask_of("ip_proto")) == 0


def test_rules_of_a_new_kind_count_from_the_next_look_up_on() -> None:
    classifier: Classifier[FlowEntry] = Classifier()
    classifier.insert(rule_of(2, **TCP, tcp_dst=80))
    key = key_of(**TCP, tcp_dst=53)
    assert classifier.lookup(key, KNOWN) == (None, mask_of("eth_type", "ip_proto") | prefix("tcp_dst", 10))
    classifier.insert(rule_of(2, eth_type=0x0800, ip_proto=17, udp_dst=53))
    assert classifier.lookup(key, KNOWN) == (None, mask_of("eth_type", "ip_proto") | prefix("tcp_dst", 10))
    assert classifier.lookup(key_of(eth_type=0x0800, ip_proto=1), KNOWN) == (None, mask_of("eth_type", "ip_proto"))


def test_what_one_subtable_depends_on_rules_out_the_next() -> None:
    rules = [
        rule_of(9, eth_dst=7),
        rule_of(8, vlan_tci=0x1001, eth_dst=8),
        rule_of(8, vlan_tci=0x0FFE, eth_dst=~8 & 0xFFFFFFFFFFFF),
    ]
    assert consulted(rules, key_of(vlan_tci=0x1001, eth_dst=9)) == mask_of("eth_dst")


def test_rules_that_come_and_go_are_ruled_out_as_long_as_they_are_not_there() -> None:
    classifier: Classifier[FlowEntry] = Classifier()
    for rule in (rule_of(9, **TCP, ipv4_src=7, tcp_dst=22), rule_of(9, **TCP, ipv4_src=8, tcp_dst=65513)):
        classifier.insert(rule)
    key, known = key_of(**TCP, ipv4_src=7, tcp_dst=80), KNOWN | mask_of("tcp_dst")
    assert classifier.lookup(key, known) == (None, 0)
    third = rule_of(9, **TCP, ipv4_src=9, tcp_dst=80)
    classifier.insert(third)
    assert classifier.lookup(key, known)[1] & ~known == mask_of("eth_type", "ip_proto") | prefix("ipv4_src", 29)
    classifier.remove(third)
    assert classifier.lookup(key, known) == (None, 0)


def test_rules_of_the_winners_priority_are_not_looked_at() -> None:
    rules = [rule_of(3, eth_type=0x0800), rule_of(3, eth_dst=5)]
    classifier: Classifier[FlowEntry] = Classifier()
    for rule in rules:
        classifier.insert(rule)
    assert classifier.lookup(key_of(eth_type=0x0800, eth_dst=5), KNOWN) == (rules[0], mask_of("eth_type"))


def test_rules_of_lower_priority_than_the_winner_are_not_looked_at() -> None:
    rules = [rule_of(3, eth_type=0x0800, ipv4_dst=(0x0A000000, 8)), rule_of(2, **TCP, ipv4_dst=0x0A000001, tcp_dst=80)]
    assert consulted(rules, key_of(**TCP, ipv4_dst=0x0A000001, tcp_dst=80)) == mask_of("eth_type") | prefix("ipv4_dst", 8)


def test_rules_for_other_metadata_add_nothing() -> None:
    rules = [
        *(rule_of(9, metadata=n, eth_type=0x0800, ipv4_dst=(n << 24, 8 + n)) for n in range(1, 9)),
        rule_of(1, metadata=9, eth_type=0x0800),
        rule_of(1, metadata=3, eth_type=0x0800),
    ]
    assert consulted(rules, key_of(metadata=9, eth_type=0x0800, ipv4_dst=1 << 24)) & ~KNOWN == mask_of("eth_type")
    third = consulted(rules, key_of(metadata=3, eth_type=0x0800, ipv4_dst=1 << 24))
    assert third & ~KNOWN == mask_of("eth_type") | prefix("ipv4_dst", 7)
    assert consulted(rules, key_of(metadata=9, eth_type=0x0800), known=0) & mask_of("metadata") == mask_of("metadata")


def test_removed_rules_leave_no_trace_in_the_bits() -> None:
    classifier: Classifier[FlowEntry] = Classifier()
    rules = [rule_of(2, eth_type=0x0800, ipv4_dst=0x0A000000 | n) for n in range(100)]
    for rule in (*rules, rule_of(2, eth_type=0x0800, ipv4_dst=0xF0000000), rule_of(1)):
        classifier.insert(rule)
    key = key_of(eth_type=0x0800, ipv4_dst=0x0A0000FF)
    assert classifier.lookup(key, KNOWN)[1] == mask_of("eth_type") | prefix("ipv4_dst", 25)
    for rule in rules[1:]:
        classifier.remove(rule)
    assert classifier.lookup(key, KNOWN)[1] == mask_of("eth_type") | prefix("ipv4_dst", 25)
    classifier.remove(rules[0])
    assert classifier.lookup(key, KNOWN)[1] == mask_of("eth_type") | prefix("ipv4_dst", 1)
