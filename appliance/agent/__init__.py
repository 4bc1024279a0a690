"""The eventlet shell around the pure switch: every socket, timer and child process is here.

Invariant: ``Switch.step`` and the execution of its effects never yield to another greenlet, so events are stepped one by one.
"""
