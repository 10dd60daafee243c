"""The engine's side of workers: processes that are started, watched, given requests and drained."""
