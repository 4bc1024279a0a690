"""The switch itself, pure: ``Switch.step(event, now)`` returns effects. No socket, no clock, no thread; the agent is its shell."""
