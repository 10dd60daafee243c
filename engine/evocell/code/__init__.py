"""Code of individuals: sources, version trees and byte code."""
