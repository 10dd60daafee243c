"""Deprecated: `evocell.observability.trees` is `evocell.store.trees`."""
