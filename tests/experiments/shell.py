"""The project's command lines, each in a process of its own.

To import the packages takes a process about two seconds, and most commands of the tests no longer than that to be
refused: they are forked off one process that has imported everything and has started no device.
"""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings

ROOT = pathlib.Path(__file__).parents[2]
CACHE = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}


def cli(module: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    """``python -m experiments.MODULE FLAGS`` in the project's root; ``environment`` is beside that of the tests."""
    if any(
        name.startswith(("JAX_", "PYTHON", "LC_", "LANG")) for name in environment
    ):  # read when Python or JAX starts
        command = [sys.executable, "-m", f"experiments.{module}", *flags]
        return subprocess.run(command, cwd=ROOT, env=os.environ | CACHE | environment, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        out, err = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
        request = {
            "module": f"experiments.{module}",
            "flags": flags,
            "environment": dict(os.environ) | CACHE | environment,
            "streams": [str(out), str(err)],
        }
        server = _server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        return subprocess.CompletedProcess(request["flags"], code, out.read_text(), err.read_text())


@functools.cache
def _server() -> subprocess.Popen:
    """The process that forks, one for each process of the tests."""
    command = [sys.executable, "-m", "tests.experiments.shell"]
    server = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | CACHE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.kill)
    return server


def _serve() -> None:
    """Answers each request, a line of JSON, with the exit status of its command."""
    for path in sorted((ROOT / "experiments").glob("*.py")):
        if "DEFINE_" not in path.read_text():  # flags are the script's that runs
            __import__(f"experiments.{path.stem}")
    for name in ("orbax.checkpoint", "matplotlib.pyplot", "sklearn.cluster", "kipjax"):
        __import__(name)
    for line in sys.stdin:
        request = json.loads(line)
        with warnings.catch_warnings(action="ignore"):  # JAX warns of forks; it has started no thread yet
            child = os.fork()
        if not child:
            _become(**request)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, flush=True)


def _become(module: str, flags: list[str], environment: dict[str, str], streams: list[str]) -> None:
    """Runs the script in this process and ends it, as Python does with ``-m``."""
    code = 1
    try:
        for stream, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [module, *flags]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        atexit._run_exitfuncs()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
