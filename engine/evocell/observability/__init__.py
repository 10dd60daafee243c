"""What is known of a run: events, the durable store, fitness, lineage."""
