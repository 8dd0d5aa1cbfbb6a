"""`python -m bench`: the command line from a bare checkout."""

import sys

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
