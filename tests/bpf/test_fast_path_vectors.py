"""The eBPF fast path against the packet and action tables: the same keys and the same frames as the Python reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fast_path import FastPath, Verdict, check_leaving
from vectors.encapsulations import ENCAPSULATIONS
from vectors.executions import EXECUTIONS, ExecutionVector
from vectors.packets import IN_PORT, PACKETS, PacketVector

from appliance.datapath.compile import compile_actions
from appliance.datapath.layout import MegaflowFlag
from appliance.model.fields import ETH_TYPE, ETH_TYPE_QINQ, ETH_TYPE_VLAN, VLAN_TCI
from appliance.model.fields import IN_PORT as IN_PORT_FIELD
from appliance.model.megaflow import Controller, Forward, PacketInReason, UpcallReason
from appliance.model.ports import LOCAL_PORT, Hook
from appliance.packet.parse import parse

pytestmark = pytest.mark.root

ETHERNET_BYTES = 14


@pytest.fixture(scope="module")
def fast_path() -> Iterator[FastPath]:
    fast_path = FastPath(IN_PORT)
    yield fast_path
    fast_path.close()


FRAMES = [vector for vector in PACKETS if len(vector.frame) >= ETHERNET_BYTES]
"""The kernel runs programs on nothing shorter."""


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector.name)
def test_key(fast_path: FastPath, vector: PacketVector, hook: Hook) -> None:
    result = fast_path.execute(vector.frame, hook)
    assert result.key == vector.key


TAGGED = [vector for vector in FRAMES if VLAN_TCI.get(vector.key)]


@pytest.mark.parametrize("vector", TAGGED, ids=lambda vector: vector.name)
def test_key_with_the_tag_in_metadata(fast_path: FastPath, vector: PacketVector) -> None:
    """As the kernel gives it to TC; and the slow path gets the frame with the tag put back."""
    result = fast_path.execute(vector.frame, Hook.TC, network_tag=True)
    assert result.key == vector.key
    assert [(upcall.frame, upcall.key, upcall.reason) for upcall in result.upcalls] == [
        (vector.frame, vector.key, UpcallReason.MISS)
    ]


@pytest.mark.parametrize("hook", Hook)
def test_the_local_port_has_its_openflow_number_in_keys(fast_path: FastPath, hook: Hook) -> None:
    """And its place in the arrays: what comes in there hits the megaflow, back to it too, and is no miss."""
    frame = FRAMES[0].frame
    key = IN_PORT_FIELD.put(0, LOCAL_PORT)
    with fast_path.coming_in_on(LOCAL_PORT):
        megaflow = fast_path.install((Forward(LOCAL_PORT),), key)
        result = fast_path.execute(frame, hook)
        fast_path.datapath.remove([megaflow])
        missed = fast_path.execute(frame, Hook.TC)
    assert IN_PORT_FIELD.get(result.key) == LOCAL_PORT
    assert [(output.action, output.frame) for output in result.outputs] == [(Forward(LOCAL_PORT), frame)]
    assert [upcall.in_port for upcall in missed.upcalls] == [LOCAL_PORT]


def is_punted(vector: ExecutionVector) -> bool:
    """The rules of bpf_prog: what the fast path leaves to the slow path by its actions, or by a third tag that it would pop."""
    flags = compile_actions(vector.actions).flags
    third_tag = ETH_TYPE.get(parse(vector.frame, IN_PORT).key) in (ETH_TYPE_VLAN, ETH_TYPE_QINQ)
    return bool(flags & MegaflowFlag.PUNT or (flags & MegaflowFlag.POPS and third_tag))


def check_execution(fast_path: FastPath, vector: ExecutionVector, hook: Hook, network_tag: bool = False) -> None:
    flags, punted = compile_actions(vector.actions).flags, is_punted(vector)
    megaflow = fast_path.install_for(vector.frame, vector.actions)
    try:
        result = fast_path.execute(vector.frame, hook, network_tag)
    finally:
        fast_path.datapath.remove([megaflow])
    ttl_used_up = any(isinstance(a, Controller) and a.reason is PacketInReason.INVALID_TTL for a, _ in vector.emissions)
    if hook is Hook.XDP and (not flags & MegaflowFlag.XDP or ttl_used_up or punted):
        assert (result.code, result.outputs) == (Verdict.XDP_PASS, ())
    elif punted or ttl_used_up:
        assert result.code == Verdict.TC_STOLEN
        assert result.outputs == ()
        assert [upcall.frame for upcall in result.upcalls] == [vector.frame]
        reason = UpcallReason.ACTION if punted else UpcallReason.TTL
        assert [(upcall.reason, upcall.megaflow_id) for upcall in result.upcalls] == [(reason, megaflow)]
    else:
        check_leaving(result, vector.leaving, megaflow)


ON_FRAMES = [vector for vector in (*EXECUTIONS, *ENCAPSULATIONS) if len(vector.frame) >= ETHERNET_BYTES]
TAGGED_EXECUTIONS = [vector for vector in ON_FRAMES if VLAN_TCI.get(parse(vector.frame, IN_PORT).key)]


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize("vector", ON_FRAMES, ids=lambda vector: vector.name)
def test_execution(fast_path: FastPath, vector: ExecutionVector, hook: Hook) -> None:
    check_execution(fast_path, vector, hook)


@pytest.mark.parametrize("vector", TAGGED_EXECUTIONS, ids=lambda vector: vector.name)
def test_execution_with_the_tag_in_metadata(fast_path: FastPath, vector: ExecutionVector) -> None:
    check_execution(fast_path, vector, Hook.TC, network_tag=True)


def test_few_vectors_need_the_slow_path() -> None:
    """Otherwise the tests above would compare little."""
    punted = [vector.name for vector in ON_FRAMES if is_punted(vector)]
    assert len(punted) < len(ON_FRAMES) / 5, punted
