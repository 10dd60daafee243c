"""The `evocell` command line. Nothing else imports this package."""
