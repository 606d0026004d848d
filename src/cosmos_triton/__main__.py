"""`python -m cosmos_triton` is `cosmos-triton`."""

import sys


def main() -> int:
    """The command line; one sentence where only the client is installed."""
    try:
        from cosmos_triton.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cosmos_"):
            raise
        sys.stderr.write(f"cosmos-triton: {error.name} is missing: pip install 'cosmos-triton[serve]'\n")
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
