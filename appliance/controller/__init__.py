"""The integrated controller: Ryu apps in a process of their own that speaks plain OpenFlow on loopback.

Invariant: nothing of the appliance is imported here, nor is this imported by the switch: ``agent.integrated`` starts
``python -m appliance.controller`` as a child, and a real controller takes its place by one line of configuration.
"""
