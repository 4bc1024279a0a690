"""The fast path seen from Python: one protocol (``driver``), the eBPF driver that is the only user of bcc, and a fake for tests."""
