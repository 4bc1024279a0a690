"""What tests of the agent share: an agent on a fast path in memory, and a controller of it."""

from __future__ import annotations

import pytest
from agent_support import Peer, free_port, running


@pytest.fixture
def box(tmp_path):
    """An agent that listens, so that a test may be its controller."""
    port = free_port()
    with running(tmp_path, listen=(f"ptcp:{port}",)) as box:
        box.openflow_port = port
        yield box


@pytest.fixture
def peer(box):
    peer = Peer.connect(box.openflow_port)
    peer.greet()
    yield peer
    peer.close()
