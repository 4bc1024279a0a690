"""The OpenFlow 1.3 wire protocol, sans I/O: bytes in, frozen messages out, and back. ``connection`` holds the state machine.

``messages`` names every message, ``errors`` every error code, ``codec`` turns one into bytes and back.
"""
