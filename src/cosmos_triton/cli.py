"""`cosmos-triton`: what an operator runs. Each command lives beside the library it exposes."""

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cosmos_export import commands as export
from cosmos_triton.checkpoints import commands as checkpoints
from cosmos_triton.demo import commands as demo
from cosmos_triton.errors import CosmosError
from cosmos_triton.sentences import sentence
from cosmos_triton.server import commands as server

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_OUTPUT = "standard output"

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
    """Runs one command; what stops it becomes one sentence on stderr and an exit code."""
    _open_standard_streams()
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except CosmosError as error:
        return _failed(str(error), int(getattr(error, "exit_code", 1)))
    except ModuleNotFoundError as error:
        return _failed(f"{error.name} is missing: pip install 'cosmos-triton[serve]'")
    except BrokenPipeError:  # whoever read our output has seen enough, as with `| head`
        _drop_output()
        return 141
    except OSError as error:  # callers that know more have said it
        if error.filename == _OUTPUT:
            _drop_output()
        return _failed(sentence(error))
    except MemoryError:
        return _failed("there is not enough memory")
    except KeyboardInterrupt:
        return _failed("interrupted", 130)


def _failed(reason: str, code: int = 1) -> int:
    sys.stderr.write(f"cosmos-triton: {reason}\n")
    return code


def _drop_output() -> None:
    """Lets what was printed go nowhere; else the interpreter would fail with it once more as it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()


class _Output(io.FileIO):
    """Standard output whose errors say that they are its own."""

    def write(self, content: "ReadableBuffer") -> int:
        try:
            return super().write(content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, _OUTPUT) from None


class _Unheard(io.FileIO):
    """Standard error of a program that goes on when nobody can read it: a full disk, a closed terminal."""

    def write(self, content: "ReadableBuffer") -> int:
        with suppress(OSError):
            return super().write(content)
        return memoryview(content).nbytes


def _open_standard_streams() -> None:
    """Streams that the caller closed fail at use, not by being None; and stderr never fails."""
    # A closed stream's number is taken, so that no file gets it; by something that cannot be written to.
    for number, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        if stream is None:
            os.dup2(os.open(os.devnull, os.O_RDONLY), number)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(1, "wb", closefd=False))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Unheard(2, "wb", closefd=False), line_buffering=True)


def _text(raw: io.FileIO, line_buffering: bool = False) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(raw)
    lines = line_buffering or raw.isatty()
    return io.TextIOWrapper(buffered, errors="backslashreplace", line_buffering=lines)


if __name__ == "__main__":
    sys.exit(main())
