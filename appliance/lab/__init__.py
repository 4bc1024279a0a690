"""A network to try the switch on: hosts in namespaces of their own, and the demonstration that runs on it."""
