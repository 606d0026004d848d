"""`cosmos-triton`: what an operator runs. Each command lives beside the library it exposes."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from cosmos_export import commands as export
from cosmos_triton.checkpoints import commands as checkpoints
from cosmos_triton.demo import commands as demo
from cosmos_triton.errors import CosmosError
from cosmos_triton.server import commands as server

# Each adds its subcommands to the parser; a subcommand sets `run`, which takes the parsed arguments and
# returns the exit code.
_REGISTER = (checkpoints.register, demo.register, export.register, server.register)


def parser() -> argparse.ArgumentParser:
    """The command line of every subcommand."""
    root = argparse.ArgumentParser(
        prog="cosmos-triton",
        description="Operate Cosmos world models on Triton. Exit codes: 0 done, 1 failed, 2 wrong usage; "
        "`download` has more, see its help.",
    )
    root.add_argument("-v", "--verbose", action="store_true", help="log what happens, to stderr")
    subparsers = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for register in _REGISTER:
        register(subparsers)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an error raised on purpose becomes one sentence on stderr and an exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        return int(options.run(options))
    except CosmosError as error:
        sys.stderr.write(f"cosmos-triton: {error}\n")
        return int(getattr(error, "exit_code", 1))
    except ModuleNotFoundError as error:
        sys.stderr.write(f"cosmos-triton: {error.name} is missing: pip install 'cosmos-triton[serve]'\n")
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a folder that cannot be written to
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        sys.stderr.write(f"cosmos-triton: {what}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("cosmos-triton: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
