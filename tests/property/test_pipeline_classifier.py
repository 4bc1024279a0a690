"""The classifier against a sorted list, and what it says it consulted."""

from __future__ import annotations

from random import Random

import pipeline_cases as cases
import pytest
from hypothesis import given

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
        for _ in range(3):
            assert classifier.lookup(cases.flip(rnd, key, ~consulted)) == (found, consulted)
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
