"""Integrations for frameworks and libraries with an evolution loop of their own; see ``docs/guides``.

No other module imports these, and each imports only its own framework.
"""
