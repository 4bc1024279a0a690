"""The nouns of the switch: fields, flow key, match, actions, instructions, megaflow, port. Frozen, and free of I/O.

Everything above imports from here; nothing here imports anything but the standard library.
"""
