"""The durable store: one SQLite database with runs, lineage, fitness, records and the audit log."""
