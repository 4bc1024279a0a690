"""The slow path's tables and translation: pure functions of integer flow keys, with time as an argument."""
