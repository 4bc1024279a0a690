"""Ryu's vocabulary: the one module that knows whether it comes from os-ken (Ryu's maintained successor) or from ryu itself.

Only ``ofproto`` modules may be imported from either: they are plain Python, the rest starts an event loop.
"""

from __future__ import annotations

try:
    from os_ken.ofproto import ofproto_v1_3
except ImportError:
    from ryu.ofproto import ofproto_v1_3

__all__ = ["ofproto_v1_3"]
