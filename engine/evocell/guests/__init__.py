"""The worker's side: guest interpreters, their forks and sessions, and what schedules them."""
