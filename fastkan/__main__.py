"""python -m fastkan: the command line."""

import sys

from fastkan_cli import main

if __name__ == "__main__":
    sys.exit(main())
