"""The ``ofswitch`` command: reads arguments, asks what is below, and renders the answers. No decisions about switching."""
