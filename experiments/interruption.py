"""What ends a run before its last step: a signal, a number that is not finite."""

import contextlib
import signal
import threading
import time
from collections.abc import Collection, Iterator

import jax
import numpy as np

from kipjax import checks
from kipjax.core import processes

__all__ = ["NOTICE", "Diverged", "Interrupted", "Watch", "likely_cause"]

NOTICE = 30.0
"""Seconds from SIGTERM to SIGKILL that preempted machines of the common clouds and of Kubernetes get, or fewer."""


class Diverged(checks.NumericalError):
    """A metric is not finite; ``rolled_back`` says whether the run had gone back once already."""

    def __init__(self, message: str, *, rolled_back: bool):
        super().__init__(message)
        self.rolled_back = rolled_back


_SOLVES = ("solve_dtype", "dtype")
_TRAINS = ("inner_step_size", "step_size", "network_learning_rate", "model_learning_rate", "lr_learning_rate")


def likely_cause(options: Collection[str], *, updated: bool) -> str:
    """Why numbers of a run are not finite, in words, each cause with what to change.

    Args:
      options: names of the method's options, which say what it does in a step.
      updated: the metrics of the step are finite and what its update made is not.

    >>> likely_cause(["learning_rate"], updated=False)
    'too large a step size (lower --config.method.learning_rate)'
    """
    causes = []
    rate = ["too large a step size (lower --config.method.learning_rate)"] * ("learning_rate" in options)
    if any(name in options for name in _SOLVES):
        causes.append("a kernel matrix that does not factorise (raise --config.method.reg and solve in float64)")
    within = next((name for name in _TRAINS if name in options), None)
    if within:
        causes.append(f"a network that diverges while it is trained inside a step (lower --config.method.{within})")
    return " or ".join(rate if updated and rate else causes + rate)


class Interrupted(BaseException):
    """The process was told to stop (SIGTERM); no ``Exception``, as it comes in the middle of calls that handle theirs.

    ``step`` is that of the checkpoint before it, or ``None`` before the first step of this process; ``together`` says
    that all processes of the program stop with it.
    """

    def __init__(self, step: int | None, *, together: bool = False):
        where = "before the first step" if step is None else f"saved at step {step}"
        super().__init__(f"told to stop; {where}, go on with --resume")
        self.step, self.together = step, together


class Watch:
    """Hears SIGTERM, which the machines of a cloud get before they are taken away, and raises ``Interrupted``.

    It does so at once, but in ``deferred``, where there is a state to save first.
    """

    def __init__(self):
        self.saved: int | None = None
        self._seen = self._deferred = False
        self._before = None
        self._began = self._warned = None

    def __enter__(self) -> "Watch":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self._seen = True
        if not self._deferred:
            self.require_untold()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """In here a signal is noted, for ``told``; one that came too late for that is raised at the end."""
        self._deferred = True
        try:
            self.require_untold()
            yield
        finally:
            self._deferred = False
        self.require_untold()

    def require_untold(self) -> None:
        """Raises ``Interrupted`` where this process was told to stop."""
        if self._seen:
            raise Interrupted(self.saved)

    def after(self, steps: int, log_every: int) -> None:
        """To be called after each stretch of steps; says once if stretches are too long to be told to stop between.

        The signal is heard between stretches. Half of ``NOTICE`` is left for what follows, the checkpoint.
        """
        now, began = time.monotonic(), self._began
        self._began = now
        if began is None or self._warned or steps < log_every:  # the first stretch compiles
            return
        seconds = now - began
        if seconds > NOTICE / 2:
            self._warned = True
            if processes.is_first():
                print(
                    f"{log_every} steps take {seconds:.3g} s, and SIGTERM is heard between them alone; where machines "
                    f"are taken away {NOTICE:g} s after it, {_remedy(seconds, log_every)}",
                    flush=True,
                )

    def told(self) -> bool:
        """Whether this process, or any other of the program, was told to stop; the same answer in all of them."""
        if jax.process_count() == 1:
            return self._seen
        from jax.experimental import multihost_utils

        with processes.peers():
            return bool(np.any(multihost_utils.process_allgather(np.array(self._seen))))


def _remedy(seconds, log_every):
    """What shortens a stretch of that many seconds to half of ``NOTICE``, or what is lost where nothing does."""
    divisors = (n for n in range(log_every, 0, -1) if log_every % n == 0)
    fitting = next((n for n in divisors if n * seconds <= log_every * NOTICE / 2), None)
    if fitting:
        return f"resume with --config.log_every={fitting}"
    also = " and --config.log_every=1" if log_every > 1 else ""
    return (
        "one step is too long to end in time, so at most the steps since the last checkpoint are lost; resume with a "
        f"lower --config.checkpoint_every{also}"
    )
