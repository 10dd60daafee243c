"""What sandboxes are and what becomes of them: lifecycle, compiled versions, batches, scores."""
