"""`python -m evocell`: the same as the `evocell` command."""

import sys

from evocell.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
