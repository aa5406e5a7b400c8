"""The entry points: they parse the command line, run one verb and map errors to exit codes.

Exit codes: 0 done, 1 failed, 2 wrong input, 141 when the reader of the output left (as by SIGPIPE).
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from dfn_ray.cli.verbs import COMPLETE, PROGRAM, VERBS
from dfn_ray.console.printable import print_in_any_encoding, printable
from dfn_ray.errors import DfnRayError

FAILED = 1
WRONG_INPUT = 2
READER_LEFT = 128 + signal.SIGPIPE
STOPPED = "stopped; committed work is kept, and the same command resumes it"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    if instruction := os.environ.get(COMPLETE):
        sys.exit(shell_complete(VERBS, {}, PROGRAM, COMPLETE, instruction))
    # `ray job stop`, Kubernetes and spot machines end a driver by SIGTERM: it stops as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    print_in_any_encoding()
    try:
        code = _run_verb(list(sys.argv[1:] if arguments is None else arguments))
        # Python's own flush, at exit, would print what it raises.
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        if not _closed_pipes():
            raise
        _discard_output()
        return READER_LEFT
    return code


def _run_verb(words: list[str]) -> int:
    context = None
    try:
        context = VERBS.make_context(PROGRAM, words)
        with context:
            VERBS.invoke(context)
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    except click.UsageError as error:
        _complain(_usage_message(error))
        return WRONG_INPUT
    except DfnRayError as error:
        _complain(f"{_command(context)}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _complain(f"{_command(context)}: {STOPPED}")
        return FAILED
    return 0


def _usage_message(error: click.UsageError) -> str:
    if error.ctx is None:
        return f"{PROGRAM}: {error.format_message()}"
    path = error.ctx.command_path
    usage = f"{error.ctx.get_usage()}\nTry '{path} --help' for help."
    return f"{path}: {error.format_message()}\n{usage}"


def _command(context: click.Context | None) -> str:
    verb = context and context.invoked_subcommand
    return f"{PROGRAM} {verb}" if verb else PROGRAM


def _complain(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


def _closed_pipes() -> list[int]:
    """The descriptors of stdout and stderr that nobody reads any more.

    A broken pipe of anything else is a fault of its own and is raised.
    """
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), 0)
    return [descriptor for descriptor, _ in poll.poll(0)]


def _discard_output() -> None:
    """Redirects stdout and stderr, and what is left in their buffers, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in _closed_pipes():
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
