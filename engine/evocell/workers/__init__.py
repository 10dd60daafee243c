"""Engine side of worker processes: start, supervision, dispatch, draining."""
