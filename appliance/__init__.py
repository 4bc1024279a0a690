"""ofswitch: an OpenFlow switch with an eBPF fast path and a slow path in Python. DESIGN.md shows the way of a packet."""
