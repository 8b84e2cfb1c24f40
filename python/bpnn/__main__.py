"""`python -m bpnn` is the command `bpnn`."""
import sys

from bpnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
