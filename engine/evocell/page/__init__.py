"""The page about a run: what `evocell report` writes once and `evocell dashboard` keeps up to date."""
