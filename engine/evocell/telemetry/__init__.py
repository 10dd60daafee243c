"""Events of an engine: handlers, the stream for subscribers, and the log on disk."""
