"""Processes over loopback: what differs between them is said by all, and none outlives another by a minute."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from kipjax import checks
from kipjax.core import processes

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import os, signal, time
import jax
import numpy as np
from experiments import cli
from kipjax import checks
from kipjax.core import processes

own, what = int(os.environ["OWN"]), os.environ["WHAT"]


def main():
    if what == "apart":
        processes.PATIENCE = 4
    if what == "auto":
        processes.start()
    else:
        processes.start("localhost:" + os.environ["PORT"], int(os.environ["COUNT"]), own)
    if what == "aborted" and own == 1:
        os.abort()
    assert jax.process_index() == own and processes.is_first() == (own == 0)
    processes.agree("here", {"seed": 3, "rate": 0.1, "list": (1, 2)})
    if what == "differ":
        processes.agree("here", {"seed": own % 2, "rate": 0.1})
    if what.startswith("mistake") and own == int(what[-1]):
        raise checks.InputError("mine alone")
    if what == "defect" and own == 1:
        raise TypeError("no such thing")
    if what == "spread":
        rows = jax.sharding.NamedSharding(jax.make_mesh((2,), ("rows",)), jax.sharding.PartitionSpec("rows"))
        spread = jax.make_array_from_callback((2, 1), rows, lambda index: np.full((1, 1), np.nan))
        checks.finite("here", "spread", spread)
        checks.finite("here", "own", jax.numpy.asarray(spread.addressable_data(0)))
    processes.barrier("all are here")
    print("met", flush=True)
    processes.barrier("all have said so")
    if what.startswith("killed") and own == int(what[-1]):
        os.kill(os.getpid(), signal.SIGKILL)
    if what.startswith("killed") and "busy" in what or what == "defect":
        time.sleep(100)
    if what.startswith("killed"):
        processes.barrier("one is not here")


cli.run(main)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return str(probe.getsockname()[1])


def started(what, own, count, port, **extra):
    """The process of that number."""
    environment = os.environ | {"WHAT": what, "PORT": port, "COUNT": str(count), "XLA_FLAGS": ""} | extra
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment | own_environment(own), **options)


def together(what, count=2, **extra):
    """``[(status, stdout, stderr), ...]`` of so many processes."""
    port = free_port()
    programs = [started(what, i, count, port, **extra) for i in range(count)]
    found = []
    for process in programs:
        out, error = process.communicate(timeout=300)
        found.append((process.returncode, out, error))
    return found


def own_environment(i):
    return {"OWN": str(i), "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}


def last(error):
    """The last line, which is what a user sees; JAX may write before it."""
    return error.strip().splitlines()[-1]


@pytest.mark.slow
def test_all_say_which_process_differs_and_in_what():
    for status, out, error in together("differ", 3):
        assert status == 2 and not out
        assert last(error) == "error: here: process 1 has seed 1 and process 0 0; start all processes alike"


@pytest.mark.slow
def test_an_array_spread_over_processes_is_not_asked_for_its_values():
    for status, _, error in together("spread"):
        assert status == 2 and last(error).startswith("error: here: own has NaN or infinite entries in 1 of 1 rows")


@pytest.mark.slow
@pytest.mark.parametrize("where", [0, 1])
def test_a_mistake_in_one_process_ends_all_with_its_reason(where):
    """The other one waits at a barrier for it."""
    began = time.monotonic()
    found = together(f"mistake {where}")
    assert time.monotonic() - began < 90  # of which a loaded machine takes most to start
    status, _, error = found[where]
    assert status == 2 and last(error) == "error: mine alone"
    status, _, error = found[1 - where]
    assert status == 5 and f"process {where} has ended (mine alone); start all of them again" in last(error)


@pytest.mark.slow
def test_a_defect_in_one_process_keeps_its_traceback_and_ends_all():
    (status, _, error), (other, _, trace) = together("defect")
    assert other == 1 and "Traceback" in trace and last(trace) == "TypeError: no such thing"
    assert status == 5 and "process 1 has ended (TypeError: no such thing)" in last(error)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["killed at work busy 0", "killed at work busy 1", "killed at a barrier 0"])
def test_when_a_process_is_killed_the_others_end_within_a_minute(what):
    """Of the first one, which holds the program together, JAX says so by an abort of all others."""
    dead, port = int(what[-1]), free_port()
    both = [started(what, i, 2, port) for i in range(2)]
    both[dead].communicate(timeout=300)
    killed = time.monotonic()
    out, error = both[1 - dead].communicate(timeout=300)
    assert time.monotonic() - killed < 60  # one that noticed nothing sleeps for 100 s
    assert both[dead].returncode == -9 and both[1 - dead].returncode == 5 and out.endswith("met\n")
    assert last(error).startswith(f"error: process {1 - dead} of 2: ")
    assert "another process is gone or cannot be reached" in last(error)
    assert last(error).endswith("start all of them again with --resume")


@pytest.mark.slow
@pytest.mark.parametrize("own", [0, 1])
def test_a_process_that_is_alone_says_so_and_stops(own):
    process = started("apart", own, 2, free_port())
    out, error = process.communicate(timeout=120)
    assert process.returncode == 2 and not out
    assert last(error).startswith("error: processes.start: the processes did not come together (within 4 s); start all")


@pytest.mark.slow
def test_an_abort_of_its_own_is_not_laid_on_another_process():
    _, (status, _, error) = together("aborted")
    assert status == 5
    assert last(error).startswith("error: process 1 of 2: this process was aborted; if nothing above says why, another")


@pytest.mark.parametrize("coordinator", ["", "here", "here:", ":1", "here:abc", "here:0", "here:65536", "here:1_0"])
def test_what_is_no_address_of_a_coordinator_is_refused(coordinator):
    with pytest.raises(checks.InputError, match=f"coordinator is '{coordinator}'; expected HOST:PORT"):
        processes.start(coordinator, 2, 1)


def test_a_port_that_is_taken_is_refused_by_the_first_process():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(checks.InputError, match=rf"port {port} cannot be had on this host \(.*\); choose another"):
            processes.start(f"localhost:{port}", 2, 0)


@pytest.mark.slow
def test_programsfind_each_other_in_a_job_of_slurm():
    """Its port follows from the number of the job."""
    job = {"SLURM_JOB_ID": str(time.time_ns() % 4000), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    for status, out, error in together("auto", SLURM_STEP_NUM_NODES="1", **job):
        assert status == 0 and out.endswith("met\n"), error


def test_with_one_process_there_is_nothing_to_wait_for():
    processes.barrier("here")
    processes.agree("here", {"anything": object()})
    assert processes.is_first() and not processes.is_loss(ValueError("Gloo AllGather failed"))
    with processes.peers(), pytest.raises(SystemExit) as caught:
        processes.leave(3, "why not")
    assert caught.value.code == 3


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("UNAVAILABLE: Task 1 heartbeat timeout"), True),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:13733"), True),
        (RuntimeError("INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was"), True),
        (RuntimeError("INTERNAL: NCCL operation ncclCommInitRank failed: unhandled cuda error 'out of memory'"), False),
        (ValueError("UNKNOWN: Gloo AllReduce failed: unsupported type"), False),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes"), False),
        (checks.InputError("reg is -1; UNAVAILABLE"), False),
    ],
)
def test_errors_of_a_lost_process_are_told_from_others(error, lost, monkeypatch):
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    assert processes.is_loss(error) == lost
    wrapped = RuntimeError("checkpoint")
    wrapped.__cause__ = error
    assert processes.is_loss(wrapped) == lost


def test_what_does_not_go_together_is_refused():
    with pytest.raises(checks.InputError, match="go together; pass all or none"):
        processes.start("localhost:1", None, 0)
    with pytest.raises(checks.InputError, match="process_id is 2; it must lie between 0 and 1"):
        processes.start("localhost:1", 2, 2)
