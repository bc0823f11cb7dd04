"""`python -m analysis360.cli`."""

import sys

from analysis360.cli import main

if __name__ == "__main__":
    sys.exit(main())
