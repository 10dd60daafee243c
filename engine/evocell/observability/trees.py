"""Deprecated: import `to_dot` and `to_json` from `evocell.store.trees`."""

import warnings

from evocell.store.trees import to_dot, to_json

__all__ = ["to_dot", "to_json"]

warnings.warn("evocell.observability.trees is evocell.store.trees now", DeprecationWarning, stacklevel=2)
