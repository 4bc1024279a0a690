"""What a packet means: bytes to flow key (``parse``), and what a datapath action does to bytes (``execute``). Pure.

These modules are the reference: the eBPF program does the same, and is checked against them.
"""
