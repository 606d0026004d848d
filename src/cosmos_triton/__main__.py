"""`python -m cosmos_triton` is `cosmos-triton`."""

from cosmos_triton.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
