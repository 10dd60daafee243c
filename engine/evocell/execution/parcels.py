"""Deprecated: files of sandboxes and images are in `evocell.execution.archive`."""

import warnings

from evocell.execution.archive import Archive as Parcel
from evocell.execution.archive import read_archive as read_parcel
from evocell.execution.archive import write_archive as write_parcel

__all__ = ["Parcel", "read_parcel", "write_parcel"]

warnings.warn("evocell.execution.parcels is evocell.execution.archive now", DeprecationWarning, stacklevel=2)
