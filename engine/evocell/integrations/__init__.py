"""Ways into evocell from frameworks and libraries that have a loop already; see ``docs/guides``.

Nothing else imports these modules, and each imports its framework only if that is what it is for.
"""
