"""``python -m vidnoise`` is ``vidnoise``."""

import sys

from vidnoise.cli import main

if __name__ == "__main__":
    sys.exit(main())
