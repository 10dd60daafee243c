"""The `evocell` command: what a person types. Nothing else imports this package."""
