"""Worker side: guest interpreters, forks, sessions, scheduling."""
