"""The durable store: one SQLite database of runs, lineage, fitness, records and the audit log."""
