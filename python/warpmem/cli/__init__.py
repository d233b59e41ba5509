"""The command line: `warpmem` and `python -m warpmem`.

Results go to stdout; progress, counts and errors go to stderr. An error is one line,
``warpmem: ErrorClass: message``, and never holds memory text. Exit codes:

    0    done
    1    refused input, or a check that failed
    2    wrong usage
    3    a problem with the store: locked, damaged, read-only, disk full, another model
    130  interrupted by Ctrl-C; what was acknowledged before is stored
    141  whoever read stdout went away, as with `warpmem list ... | head`, or it was closed from the start
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from ..errors import StoreError, WarpmemError
from .parser import make_parser, run

__all__ = ["main"]

OK, REFUSED, USAGE, STORE_PROBLEM, INTERRUPTED, NO_READER = 0, 1, 2, 3, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` defaults to the process's own arguments."""
    nobody_reads = sys.stdout is None
    _open_what_is_closed()
    _escape_what_stdout_lacks()
    try:
        code = run(make_parser().parse_args(argv))
        sys.stdout.flush()
        if nobody_reads:
            return NO_READER
    except SystemExit as stop:  # argparse has already said what is wrong, or printed the help
        return stop.code if isinstance(stop.code, int) else USAGE
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except KeyboardInterrupt:
        print("warpmem: interrupted", file=sys.stderr)
        return INTERRUPTED
    except argparse.ArgumentError as error:
        print(f"warpmem: usage: {error.message}", file=sys.stderr)
        return USAGE
    except WarpmemError as error:
        print(f"warpmem: {type(error).__name__}: {error}", file=sys.stderr)
        return STORE_PROBLEM if isinstance(error, StoreError) else REFUSED
    return code


def _open_what_is_closed() -> None:
    """Nothing, for each standard stream the process was started without: a file of the store would else get
    its number, and with it what a library writes to stderr."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _escape_what_stdout_lacks() -> None:
    """Let characters outside stdout's encoding be written as escapes, as stderr does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")
