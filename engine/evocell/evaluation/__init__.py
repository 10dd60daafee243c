"""Evaluation of candidates: plans, batches, stages, scores, comparisons and memoised outcomes."""
