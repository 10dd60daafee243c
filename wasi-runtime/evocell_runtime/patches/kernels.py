"""Functions that programs with arrays spend their time in, replaced by faster ones with the same results."""

from __future__ import annotations

from evocell_runtime.patches import argsorting, arithmetic, extremes, products, selecting, sorting
from evocell_runtime.patches.model import AnyPatch

KERNELS: tuple[AnyPatch, ...] = (
    *sorting.donors(),
    *argsorting.donors(),
    *selecting.donors(),
    *products.donors(),
    *extremes.donors(),
    *arithmetic.donors(),
)
