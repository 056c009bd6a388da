"""The plan counts what the compiler counts, and its times follow from the figures of the device."""

import math
import pathlib
import re

import jax
import numpy as np
import pytest

from experiments import plan
from kipjax import models
from kipjax.core import sharding
from kipjax.kernels import infinite
from kipjax.methods import kip, label_solve, rcig
from kipjax.types import Batch, Distilled
from tests.experiments.shell import cli

ROOT = pathlib.Path(__file__).parents[2]
DEVICE = plan.Device(1e12, 1e11, 1e10, 1e-5, 1e9, 1e8)


def shapes(shape, n, k):
    return [jax.ShapeDtypeStruct(s, "float32") for s in ((n, *shape), (n, k))]


def lowered(method, shape, targets, support, k, over=None):
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(method.init, key, Distilled(*shapes(shape, support, k)))
    step = jax.jit(lambda key, state, batch: method.step(key, state, sharding.divide(batch, over)))
    return step.lower(key, state, Batch(*shapes(shape, targets, k)))


def all_reduces(text):
    """``(sums over devices, bytes of them)`` of a compiled program, those in a loop as often as it is gone through."""
    times, lines, body = {}, [], None
    for line in text.splitlines():
        if heading := re.match(r"(?:ENTRY )?%(\S+) \(", line):
            body = heading[1]
        elif found := re.search(r"= (.*) all-reduce\(", line):
            lines.append((body, found[1]))
        elif " while(" in line:
            times[re.search(r"body=%([^\s,]+)", line)[1]] = int(re.search(r'known_trip_count":{"n":"(\d+)"', line)[1])
    sizes = [
        sum(4 * math.prod(map(int, filter(None, found.split(",")))) for found in re.findall(r"f32\[([\d,]*)\]", types))
        for _, types in lines
    ]
    repeats = [times.get(body, 1) for body, _ in lines]
    return sum(repeats), sum(n * size for n, size in zip(repeats, sizes))


SMALL = {"targets": 512, "support": 64, "features": 256, "classes": 10}


@pytest.mark.parametrize("change", [{}, {"targets": 1024}, {"support": 128}, {"features": 1024}], ids=str)
@pytest.mark.parametrize("name", ["kip", "label_solve"])
def test_operations_are_those_that_the_compiler_counts(name, change):
    sizes = SMALL | change
    method = kip.make(infinite.fc(1)) if name == "kip" else label_solve.make(infinite.fc(1), dtype=None)
    program = lowered(method, (sizes["features"],), sizes["targets"], sizes["support"], 10).compile()
    work = plan.PLANS[name](**sizes, block=0)
    # Factorisations are calls of a library, of which the compiler knows nothing.
    assert work.shared + work.repeated == pytest.approx(program.cost_analysis()["flops"], rel=0.1)


def test_memory_is_about_what_the_compiler_plans():
    sizes = {"targets": 20_000, "support": 1500, "features": 256, "classes": 10}
    method = kip.make(infinite.fc(1), block_size=500)
    found = lowered(method, (256,), 20_000, 1500, 10).compile().memory_analysis()
    work = plan.kip(**sizes, block=500)
    bytes_of_it = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    assert 0.6 < (work.held + work.divided) / bytes_of_it < 1.6


@pytest.mark.slow
def test_passes_of_a_target_of_rcig_are_those_that_the_compiler_counts():
    """Before optimisation, which takes long; wide and with few pixels, so that products are most of it."""
    model = models.get("convnet", num_classes=3, width=128, depth=2, norm="none", activation="relu")
    method = rcig.make(model, solve="dense", pool_size=2, pool_steps=1)
    few, many = (lowered(method, (4, 4, 1), targets, 3, 3).cost_analysis()["flops"] for targets in (32, 64))
    work = plan.rcig(targets=32, support=3, side=4, channels=1, classes=3, width=128, depth=2)
    assert work.shared == pytest.approx(many - few, rel=0.1)


def test_what_is_shared_falls_with_the_devices_and_what_is_not_stays():
    work = plan.kip(targets=60_000, support=100, features=784, classes=10, block=0)
    one, eight, many = (plan.spent(work, DEVICE, count) for count in (1, 8, 1024))
    assert one.communicate == one.sent == 0 and one.efficiency == 1
    assert one.flops - eight.flops == pytest.approx(work.shared * 7 / 8)
    assert eight.sent == pytest.approx(2 * 7 / 8 * 4 * (100 * 784 + 100 * 10))
    assert eight.seconds == pytest.approx(eight.flops / 1e12 + eight.sent / 1e10 + 6e-5)
    assert many.flops > work.repeated + work.solved and many.efficiency < eight.efficiency < 1
    assert many.memory < eight.memory < one.memory == work.held + work.divided


def test_what_the_devices_do_not_divide_is_counted_as_the_fullest_device_has_it():
    work = plan.kip(targets=60_000, support=100, features=784, classes=10, block=0)
    for count, rows in ((64, 938), (1024, 59)):
        found = plan.spent(work, DEVICE, count)
        assert found.flops - work.repeated - work.solved == pytest.approx(work.shared * rows / 60_000)


def test_where_the_data_set_lies_costs_what_the_program_moves_and_holds():
    n, b, d, k = 30_000, 2000, 256, 10
    work = plan.kip(targets=b, support=20, features=d, classes=k, block=0)
    each, divided, host = (plan.placed(work, on, dataset=n, features=d, classes=k) for on in plan.DATA_ON)
    assert each.held - divided.held == 4 * n * d - 4 * b * d and each.divided == work.divided
    one, four, many = (plan.spent(divided, DEVICE, count) for count in (1, 4, 1000))
    assert four.sent - plan.spent(work, DEVICE, 4).sent == pytest.approx(3 / 4 * 4 * b * d) and one.sent == 0
    assert many.memory < plan.spent(each, DEVICE, 1000).memory
    seconds = plan.spent(host, DEVICE, 4).communicate - plan.spent(work, DEVICE, 4).communicate
    assert seconds == pytest.approx(4 * b * d / 4 / 1e8)
    whole = plan.kip(targets=n, support=20, features=d, classes=k, block=0)
    assert plan.placed(whole, "divided", dataset=n, features=d, classes=k).exchanged == 0


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices; tests force four CPU devices")
def test_bytes_exchanged_are_those_of_the_reduce_scatter_that_the_compiler_plans():
    """Its operand is the whole batch, its result the part of a device."""
    n, b, d = 3000, 200, 256
    rows = sharding.divide_rows(np.zeros((n, d), np.float32), sharding.mesh(4))
    text = jax.jit(lambda rows, i: rows.take(i)).lower(rows, np.zeros(b, np.int32)).compile().as_text()
    found = re.search(r"= f32\[(\d+),(\d+)\]\S* reduce-scatter\(", text)
    work = plan.kip(targets=b, support=20, features=d, classes=10, block=0)
    part = plan.placed(work, "divided", dataset=n, features=d, classes=10).exchanged / 4
    assert 4 * int(found[1]) * int(found[2]) == part


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices; tests force four CPU devices")
@pytest.mark.parametrize("block", [0, 128, 120], ids=["all", "blocks", "blocks and a rest"])
@pytest.mark.parametrize("name", ["kip", "label_solve"])
def test_bytes_and_sums_over_devices_are_those_that_the_compiler_plans(name, block):
    if name == "kip":
        method, bytes_each = kip.make(infinite.fc(1), block_size=block), 4
    else:
        method, bytes_each = label_solve.make(infinite.fc(1), dtype=None, block_size=block or 512), 8
    program = lowered(method, (256,), 512, 64, 10, sharding.mesh(4)).compile()
    sums, found = all_reduces(program.as_text())
    work = plan.PLANS[name](**SMALL, block=block)
    # The program is in float32; it also sums the loss, and for the gradient a number of each support image.
    assert found == pytest.approx(work.reduced * 4 / bytes_each, rel=0.01)
    assert sums == pytest.approx(work.sums, abs=1)  # of a rest, loss and gradient are one sum


def test_a_sum_in_every_block_takes_its_messages_and_bytes():
    sizes = {"targets": 60_000, "support": 100, "features": 784, "classes": 10}
    whole, blocks = (plan.spent(plan.kip(**sizes, block=block), DEVICE, 8) for block in (0, 4096))
    assert blocks.sent == pytest.approx(15 * whole.sent)
    assert blocks.communicate - blocks.sent / 1e10 == pytest.approx(15 * 2 * 2 * 3 * 1e-5)


def test_the_table_has_a_line_for_each_number_of_devices():
    done = cli("plan", "--method=label_solve", "--support=10000", "--devices=1,8,1024", "--memory=4e9")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "stated, not measured" in lines[1] and [line.split()[0] for line in lines[4:]] == ["1", "8", "1024"]
    assert lines[2] == "a data set of 60000 rows, on each"
    assert all(line.endswith("does not fit") for line in lines[4:])
    assert cli("plan", "--devices=1,none").returncode == 2
