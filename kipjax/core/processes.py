"""Several processes of one program: they come together, agree before they compute, and none waits for one that is gone.

The processes are those of ``jax.distributed``: the first hosts a small store of texts that all of them see, and notices
whose heartbeat stops. Here are the parts that a long run needs besides: a comparison of what the processes were told
and have read (JAX would compute on, each with its own), a barrier that waits as long as there is something to wait for,
and an end for all when one of them ends.
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

from kipjax import checks

__all__ = ["EXIT_PEER_LOST", "PeerLost", "agree", "barrier", "is_first", "is_loss", "leave", "peers", "start"]

EXIT_PEER_LOST = 5
"""Exit status of a process that ends because another one is gone."""

HEARTBEAT = 30
"""Seconds without a sign of a process after which it counts as gone."""

PATIENCE = 60
"""Seconds within which all processes must have been started."""

_LONG = 7 * 24 * 3600 * 1000  # milliseconds; a process that is gone ends the wait long before
_GRACE = 3.0  # seconds that a process has for its own error, once another one has ended
_EXIT_APART = 2  # exit status of a process that did not meet the others, a wrong argument as a rule
_FAREWELL = 15.0  # seconds that the first process waits for the others to read why it ends
_PARTING = 1.0  # seconds more, in which they end; a call under way when the store ends would have JAX print its loss

_numbers = itertools.count()
_ending = threading.Event()
_status = EXIT_PEER_LOST
_handlers: list[Any] = []


class PeerLost(Exception):
    """Another process of this program is gone."""


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins this process to the others of one program; to be called before anything else of JAX.

    From then on the process ends within a minute of any other that ends before its time, with status
    ``EXIT_PEER_LOST`` and a line that says why.

    Args:
      coordinator: ``HOST:PORT`` of the first process, the same for all. ``None``, with the other two, where JAX finds
        them out itself (Cloud TPU, Slurm, Open MPI).
      num_processes: how many there are.
      process_id: which of them this is, from 0.

    Raises:
      InputError: some of the three are missing or are not as described, or the port is taken. Where the others are not
        there within a minute, the process ends with a line that says so and status 2.
    """
    where, given = "processes.start", [v is not None for v in (coordinator, num_processes, process_id)]
    checks.require(
        all(given) or not any(given), where, "coordinator, num_processes and process_id go together; pass all or none"
    )
    if num_processes is not None and process_id is not None:
        checks.whole(where, "num_processes", num_processes)
        checks.within(where, "process_id", process_id, 0, num_processes - 1)
    if coordinator is not None:
        _require_usable(where, coordinator, first=process_id == 0)
    apart = f"{where}: the processes did not come together ("
    remedy = "); start all of them within a minute, with the same coordinator HOST:PORT and each its own process_id"
    # Where the others do not come, JAX aborts this process instead of raising an error.
    _at_abort(f"error: {apart}within {PATIENCE} s{remedy}\n", lambda: _EXIT_APART)
    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from the program
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        raise checks.InputError(f"{apart}{_first_line(error)}{remedy}") from error
    finally:
        _at_abort(None)
    if jax.process_count() > 1:
        _end_with_the_others()


def _require_usable(where: str, coordinator: str, *, first: bool) -> None:
    """The address must be one, and its port free for the first process; JAX would crash later, without a reason."""
    host, _, port = coordinator.rpartition(":")
    valid = host and port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    checks.require(
        bool(valid),
        where,
        f"coordinator is {coordinator!r}; expected HOST:PORT, the name of a host and a port from 1 to 65535",
    )
    if not first or "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", int(port)), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise checks.InputError(
            f"{where}: port {port} cannot be had on this host ({error.strerror}); choose another one for all processes"
        ) from error


def is_first() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here, however long the work of one of them takes; nothing with one process."""
    if jax.process_count() > 1:
        with peers():
            _store().wait_at_barrier(f"kipjax/{next(_numbers)} {name}", _LONG)


def agree(where: str, facts: dict[str, Any]) -> None:
    """All processes must come here with the same facts; nothing with one process.

    Args:
      where: what the error starts with.
      facts: what must be equal, by name; values that JSON can hold.

    Raises:
      InputError: in every process alike, with the first facts in which one differs from process 0.
    """
    if jax.process_count() == 1:
        return
    store, own, name = _store(), jax.process_index(), f"kipjax/{next(_numbers)}"
    with peers():
        if own == 0:
            store.key_value_set(f"{name}/facts", json.dumps(facts))
        expected = json.loads(store.blocking_key_value_get(f"{name}/facts", _LONG))
        store.key_value_set(f"{name}/of/{own}", json.dumps(_differences(own, json.loads(json.dumps(facts)), expected)))
        if own == 0:
            answers = [store.blocking_key_value_get(f"{name}/of/{i}", _LONG) for i in range(jax.process_count())]
            store.key_value_set(f"{name}/all", json.dumps([text for answer in answers for text in json.loads(answer)]))
        found = json.loads(store.blocking_key_value_get(f"{name}/all", _LONG))
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    checks.require(not found, where, f"{'; '.join(found[:3])}{more}; start all processes alike")


def _differences(own: int, facts: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    names = [name for name in sorted(facts.keys() | expected.keys()) if facts.get(name) != expected.get(name)]
    return [f"process {own} has {name} {facts.get(name)!r} and process 0 {expected.get(name)!r}" for name in names]


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """Turns what waiting for another process raises when that is gone into ``PeerLost``."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not is_loss(error):
            raise
        own, count = jax.process_index(), jax.process_count()
        reason = _why_another_ended() or f"another process is gone or cannot be reached ({_first_line(error)})"
        raise PeerLost(f"process {own} of {count}: {reason}; start all of them again with --resume") from error


def is_loss(error: BaseException) -> bool:
    """Whether an error is what JAX raises, under many names, when another process is gone; never with one process."""
    if isinstance(error, checks.InputError) or jax.process_count() == 1:
        return False
    texts = [str(one).strip() for one in (error, error.__cause__) if one]
    return any(re.match(_LOSS, text) or re.search(_CONNECTION, text) for text in texts)


_LOSS = r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b"
_CONNECTION = (  # what Gloo, NCCL and gRPC say of the other end; their names alone stand in errors of one's own too
    r"(?i)connection (closed|reset|refused)|socket closed|broken pipe|(read|connect) timeout|pair closure|"
    r"timed out waiting|remote process exited|barrier failed|coordination service|heartbeat"
)


def leave(status: int, reason: str) -> NoReturn:
    """Ends this process; the others of its program, if any, are told why and end too instead of waiting for it."""
    global _status
    if not _handlers:
        sys.exit(status)
    _status = status
    _ending.set()
    with contextlib.suppress(jax.errors.JaxRuntimeError, ValueError):
        own, store = jax.process_index(), _store()
        store.key_value_set(f"kipjax/ended/{own}", " ".join(reason.split())[:500], allow_overwrite=True)
        if own == 0 and status != EXIT_PEER_LOST:  # the store ends with the first process, which is the last to go
            deadline = time.monotonic() + _FAREWELL
            while len(store.key_value_dir_get("kipjax/ended/")) < jax.process_count() and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(_PARTING)
    _exit_now(status)


def _end_with_the_others() -> None:
    """Starts what ends this process when another one has ended."""
    # JAX aborts a process that lost the first one, or was told that another is gone; so does a library that crashes.
    text = f"error: process {jax.process_index()} of {jax.process_count()}: this process was aborted; if nothing above "
    _at_abort(
        f"{text}says why, another process is gone or cannot be reached; start all of them again with --resume\n",
        lambda: _status,
    )
    watch = threading.Thread(target=_watch, name="kipjax processes", daemon=True)
    watch.start()
    atexit.register(lambda: (_ending.set(), watch.join()))


def _at_abort(line: str | None, status: Callable[[], int] = lambda: 0) -> None:
    """What an abort of this process says and exits with; for ``None`` as before any such call.

    JAX aborts from threads of its own, behind Python's back: only a handler of C has the last word then.
    """
    signal_of_c = ctypes.CDLL(None).signal
    signal_of_c.restype, signal_of_c.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    if line is None:
        _, before = _handlers.pop()
        signal_of_c(signal.SIGABRT, before)
        return

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(_):
        if not _ending.is_set():
            os.write(2, line.encode())
        os._exit(status())

    _handlers.append((aborted, signal_of_c(signal.SIGABRT, ctypes.cast(aborted, ctypes.c_void_p))))


def _watch() -> None:
    """Ends the process a little after another one said that it has ended."""
    while not _ending.wait(1.0):
        try:
            reason = _why_another_ended(0)
        except jax.errors.JaxRuntimeError:  # the first process is gone, and JAX ends this one
            return
        if reason and not _ending.wait(_GRACE):
            own, count = jax.process_index(), jax.process_count()
            print(f"error: process {own} of {count}: {reason}; start all of them again with --resume", file=sys.stderr)
            leave(EXIT_PEER_LOST, f"ended because {reason}")


def _why_another_ended(patience: float = 2.0) -> str:
    """What the first process to end has said, or nothing; an answer may take a moment to come."""
    deadline = time.monotonic() + patience
    while True:
        said = _store().key_value_dir_get("kipjax/ended/")
        first = [(key.rsplit("/", 1)[1], why) for key, why in said if not why.startswith("ended because")]
        if first:
            return f"process {first[0][0]} has ended ({first[0][1]})"
        if time.monotonic() >= deadline:
            return ""
        time.sleep(0.1)


def _exit_now(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)  # an orderly exit would wait for the other processes


def _store() -> Any:
    """The store of texts, which JAX has no public name for."""
    from jax._src import distributed

    return distributed.global_state.client


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
