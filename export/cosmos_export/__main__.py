"""`python -m cosmos_export` is `cosmos-triton export`."""

import sys

from cosmos_triton.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
