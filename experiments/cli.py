"""What all entry points share: a user's mistake ends in a line or two and a non-zero exit status, no traceback."""

import errno
import io
import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable

from absl import flags

from experiments import catalogue, interruption
from kipjax import checks
from kipjax.core import processes

__all__ = ["EXIT_DIVERGED", "EXIT_INPUT", "EXIT_INTERRUPTED", "EXIT_PEER_LOST", "EXIT_SYSTEM", "run"]

EXIT_INPUT = 2
EXIT_DIVERGED = 3
EXIT_SYSTEM = 4
EXIT_PEER_LOST = processes.EXIT_PEER_LOST
EXIT_INTERRUPTED = 75  # what sysexits.h calls a temporary failure: try again

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.EFBIG: "a file grew past the size limit; raise it and run again",
    errno.EISDIR: "a folder stands where a file should be; choose another path",
    errno.EPERM: "not permitted; choose a folder that you may write to",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.ENOENT: "no such file or folder",
}


def run(main: Callable[[], None], define: Callable[[], None] = lambda: None) -> None:
    """Defines flags, parses the command line, calls ``main()`` and exits.

    Absl keeps one table of flags for the whole process, so a script that others import defines its own in ``define``.

    ``--help`` shows what the script is, its flags and the configs; ``--list`` all names that flags and configs take, a
    kind and a name in each line with a tab between, ``--list=json`` as one object.

    Exit status: 0 when ``main`` returned; 2 for a wrong flag, argument or missing input; 3 for a computation that left
    the finite numbers; 4 for a full disk, a folder without permission and the like; 5 when another process of the
    program is gone; 75 when told to stop by SIGTERM, after a checkpoint where there is a state to save; 130 when
    interrupted. Anything else is a defect of the program and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no plus-minus sign is no reason to stop
    define()
    asked = {flag.lstrip("-") for flag in sys.argv[1:]}
    try:
        if asked & {"list", "list=tsv", "list=json"}:
            print(json.dumps(catalogue.names(), indent=1) if "list=json" in asked else "\n".join(catalogue.lines()))
        elif asked & {"help", "h", "helpshort", "helpfull"}:
            print(_help())
        else:
            _parse(sys.argv)
            main()
        sys.stdout.flush()
    except checks.InputError as error:
        _exit(EXIT_INPUT, str(error))
    except checks.NumericalError as error:
        _exit(EXIT_DIVERGED, str(error))
    except interruption.Interrupted as error:
        if not error.together:
            _exit(EXIT_INTERRUPTED, str(error))
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except processes.PeerLost as error:
        _exit(EXIT_PEER_LOST, str(error))
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit fails again
        processes.leave(EXIT_SYSTEM, "whoever read its output has enough")
    except OSError as error:
        if error.errno not in _ADVICE:
            _defect(error)
        where = error.filename or os.strerror(error.errno)
        again = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and "resume" in flags.FLAGS
        _exit(EXIT_SYSTEM, f"{where}: {_ADVICE[error.errno]}{' with --resume' if again else ''}")
    except KeyboardInterrupt:
        kept = "; the last checkpoint is kept, go on with --resume" if "resume" in flags.FLAGS else ""
        _exit(130, f"interrupted{kept}")
    except Exception as error:
        _defect(error)


def _help():
    """The script's docstring, its flags in a line each, its flag files and the configs."""
    main, by_module = sys.modules["__main__"], flags.FLAGS.flags_by_module_dict()
    shared = [flag for name, some in by_module.items() if name.startswith("experiments.") for flag in some]
    found = {flag.name: flag for flag in (*flags.FLAGS.get_key_flags_for_module(main), *shared)}
    own = [found[name] for name in sorted(found)]
    lines = [(main.__doc__ or "").strip(), "", "flags:"]
    for flag in own:
        lines += textwrap.wrap(
            f"--{flag.name:<14} {' '.join((flag.help or '').split())}",
            118,
            initial_indent="  ",
            subsequent_indent=" " * 19,
        )
    script = os.path.basename(sys.argv[0]).removesuffix(".py")
    files = [path.split("/")[2] for path in catalogue.flag_files() if path.startswith(f"configs/{script}/")]
    lines += textwrap.wrap(f"flag files, as --flagfile=configs/{script}/FILE: {' '.join(files)}", 118) if files else []
    if "config" in flags.FLAGS:
        lines += ["", "configs, as --config=configs/METHOD/NAME.py (--list shows every other name):", *_configs()]
    return "\n".join(lines)


def _configs():
    """A line for each method with the names of its configs."""
    names: dict[str, list[str]] = {}
    for path in catalogue.configs():
        _, method, file = path.split("/")
        names.setdefault(method, []).append(file.removesuffix(".py"))
    return [f"  {method:<16} {' '.join(some)}" for method, some in names.items()]


def _parse(argv):
    """Absl's parsing, with errors inside a config file or an override reported like any other wrong flag."""
    program = os.path.basename(argv[0])
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            flags.FLAGS.config.keys()  # a config file that could not be loaded raises at the first use
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        raise checks.InputError(f"{program}: {_reason(error)}; --help lists the flags") from error
    checks.require(len(rest) == 1, program, f"unknown argument {' '.join(rest[1:])}; --help lists the flags")


def _reason(error):
    """One line out of what config_flags raises, which may hold a whole traceback as text."""
    if isinstance(error, OSError):
        return f"--config: no such file, {', '.join(_paths(str(error))) or error}"
    if isinstance(error, (AttributeError, KeyError)):
        field = str(error.args[0] if error.args else error).strip("\"'")
        return f"the config has no field {field!r}"
    return re.sub(r"^[\w.]*Error: ", "", str(error).strip().splitlines()[-1])


def _paths(text):
    return [line.strip() for line in text.splitlines() if line.strip().endswith(".py")][:1]


def _defect(error):
    """Ends with a traceback, as Python does; the other processes are told."""
    traceback.print_exc()
    processes.leave(1, f"{type(error).__name__}: {error}")


def _exit(status, text):
    print(f"error: {text}", file=sys.stderr)
    processes.leave(status, text)
