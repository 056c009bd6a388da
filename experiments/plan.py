"""What a step costs on many devices, by arithmetic: operations, bytes and memory of each device, and the time.

python -m experiments.plan --method=kip --targets=60000 --support=10000 --features=3072 [--devices=1,8,64,1024]
    [--data_on=each|divided|host] [--dataset=60000]
    [--flops=3e13] [--bandwidth=1e12] [--link=5e10] [--host=1e10] [--latency=1e-5] [--memory=8e10]

Nothing is measured. The speed of a device is what the flags say it is, work that does not depend on another is taken to
overlap with nothing, and the operations are those of matrix products and factorisations, with what a ReLU kernel takes
for each entry. Where the devices do not divide the targets, each is counted with ``ceil(targets / devices)``, which is
what XLA gives it: 60,000 are 938 on each of 64 and 59 on each of 1,024. Where targets come in blocks the program
sums over the devices once a block, inside its loop: bytes and messages are those of one sum times the blocks, and with
``--block=0`` those of one. Not counted are the rows that it also moves between devices, in each block, where blocks do
not divide the targets: none of 60,000 in blocks of 4,000, and in blocks of 4,096, on four devices against a support of
100 with 784 features, 25 times the bytes of the sums. Tests compare the counts with those of the program that XLA
compiles for CPUs.
"""

import math
from typing import NamedTuple

from absl import flags

from experiments import cli
from kipjax import checks

__all__ = ["DATA_ON", "PLANS", "Device", "Spent", "Work", "kip", "label_solve", "placed", "rcig", "spent", "table"]

DATA_ON = ("each", "divided", "host")

FLAGS = flags.FLAGS

# Floating-point operations for each entry of a ReLU layer's kernel and its NTK, as the compiler counts them: forward,
# and for value and gradient.
ENTRY_FORWARD, ENTRY_BOTH = 76, 118


class Work(NamedTuple):
    """A step: what the devices share, what each of them does, and what they send each other.

    Attributes:
      shared: floating-point operations of products that are divided over the devices.
      repeated: those that every device does.
      solved: those of factorisations and triangular solves, which every device does.
      reduced: bytes that are summed over the devices, in all sums.
      read: bytes of targets that are read, divided over the devices.
      held: bytes that every device holds.
      divided: bytes that are divided over the devices.
      rows: targets, which are what is divided.
      exchanged: bytes of rows that devices pick for each other: each sends all but its part, and gets its part.
      from_host: bytes that come from the hosts, divided over the devices.
      sums: sums over the devices, one after the other.
    """

    shared: float
    repeated: float
    solved: float
    reduced: float
    read: float
    held: float
    divided: float
    rows: int
    exchanged: float = 0
    from_host: float = 0
    sums: int = 1


class Device(NamedTuple):
    """Operations a second, bytes a second from its memory, to another device and from its host; seconds a message,
    bytes of memory.
    """

    flops: float
    bandwidth: float
    link: float
    latency: float
    memory: float
    host: float


class Spent(NamedTuple):
    """Of one step on ``devices``: operations and bytes of each device, seconds by cause and in all, and efficiency."""

    devices: int
    flops: float
    sent: float
    memory: float
    compute: float
    communicate: float
    seconds: float
    efficiency: float


def kip(*, targets: int, support: int, features: int, classes: int, block: int, depth: int = 1) -> Work:
    """A step of KIP through a fully connected kernel of ``depth`` ReLU layers, images learned.

    ``K_ts`` and its part of the gradient are divided over the targets, and computed again for the gradient where they
    come in blocks; ``K_ss`` and its factorisation are everybody's. Summed over devices: the gradients in the support
    and in the dual coefficients, of every block; the loss of a block is a sum of its own.
    """
    n, m, d, k = targets, support, features, classes
    again = 2 * d + ENTRY_FORWARD * depth if 0 < block < n else 0
    rows = min(block or n, n)
    blocks = math.ceil(n / rows)
    return Work(
        shared=n * m * (4 * d + 6 * k + ENTRY_BOTH * depth + again),
        repeated=m * m * (6 * d + 6 * k + 2 * ENTRY_BOTH * depth + (again if m > rows else 0)),
        solved=m**3 / 3 + 2 * 2 * m * m * k,
        reduced=4 * (m * d + m * k) * blocks,
        read=4 * n * (d + k) * (2 if again else 1),
        held=4 * (4 * m * d) + m * m * (3 * 4 + 2 * 8) + 4 * 4 * rows * m,
        divided=4 * n * (d + k),
        rows=n,
        sums=2 * blocks if again else 1,
    )


def label_solve(*, targets: int, support: int, features: int, classes: int, block: int, depth: int = 1) -> Work:
    """Label Solve in float64: the normal matrix is divided over the targets and summed block by block, then solved by
    everybody.
    """
    n, m, d, k = targets, support, features, classes
    rows = min(block or n, n)
    blocks = math.ceil(n / rows)
    return Work(
        shared=n * m * (2 * d + 2 * m + 2 * k + ENTRY_FORWARD * depth),
        repeated=m * m * (2 * d + ENTRY_FORWARD * depth),
        solved=m**3 / 3 * 2 + 2 * 2 * m**3 + 9 * m**3 + 8 * m * m * k,
        reduced=8 * (m * m + m * k) * blocks,
        read=4 * n * (d + k),
        held=8 * (m * d + 5 * m * m + 3 * rows * m),
        divided=4 * n * (d + k),
        rows=n,
        sums=blocks,
    )


def rcig(
    *, targets: int, support: int, side: int, channels: int, classes: int, width: int, depth: int, pool: int = 1
) -> Work:
    """A step of RCIG with the dense solver through a ConvNet: convolution, ReLU, 2 x 2 pooling, ``depth`` times.

    With the forward pass ``F`` of an image as the unit: a target takes one pass, its tangent two and the transposed
    tangent two more. What the support takes is an estimate: an image ``1 + 2k`` for its rows of the Jacobian, of which
    the kernel takes products, ``SUPPORT_PASSES`` for residual and gradient, three for a step of the pool's network.
    """
    b, m, k = targets, support, classes
    forward, entries, parameters = convnet(side, channels, classes, width, depth)
    rows = m * k
    return Work(
        shared=5 * b * forward,
        repeated=m * forward * (1 + 2 * k + SUPPORT_PASSES + 3 * pool) + 2 * rows**2 * parameters,
        solved=rows**3 / 3 + 2 * 2 * rows**2,
        reduced=4 * (2 * m * side**2 * channels + 2 * parameters),
        read=4 * b * side**2 * channels,
        held=4 * rows * (parameters + 2 * entries) + (4 + 16) * rows**2,
        divided=4 * b * (side**2 * channels + 6 * entries),
        rows=b,
    )


SUPPORT_PASSES = 27


def convnet(side: int, channels: int, classes: int, width: int, depth: int) -> tuple[float, float, float]:
    """Operations of a forward pass, entries of its maps, and parameters but for the last layer's kernel."""
    forward, entries, parameters, inputs = 0, 0, classes, channels
    for _ in range(depth):
        forward += 2 * 9 * side**2 * inputs * width
        entries += 2 * side**2 * width
        parameters += 9 * inputs * width + width
        side, inputs = side // 2, width
    return forward + 2 * side**2 * width * classes, entries, parameters


def placed(work: Work, data_on: str, *, dataset: int, features: int, classes: int) -> Work:
    """A step with its targets drawn from a data set of ``dataset`` rows that lies where ``config.data_on`` says.

    On ``"each"`` device: all of it on every one, and nothing is sent. ``"divided"``: every device holds its part, picks
    what it has of the batch into a copy of the whole batch, and these are added up and divided; not where the batch is
    the whole set. On the ``"host"``: a device gets its part of two batches, of ``float32`` as the worst case. Targets
    and row numbers are on every device.
    """
    everything, batch, tables = 4 * dataset * features, 4 * work.rows * features, 4 * dataset * (classes + 1)
    if data_on == "each":
        return work._replace(held=work.held + everything + tables)
    if data_on == "host":
        return work._replace(held=work.held + tables, divided=work.divided + batch, from_host=batch)
    divided = work._replace(held=work.held + tables, divided=work.divided + everything)
    if work.rows == dataset:
        return divided
    return divided._replace(held=divided.held + batch, exchanged=batch)


PLANS = {"kip": kip, "label_solve": label_solve, "rcig": rcig}


def spent(work: Work, device: Device, count: int) -> Spent:
    """A step on so many devices: a ring sums ``reduced`` bytes, of which ``2 (p - 1) / p`` are sent by each of ``p``.

    A sum takes ``2 log2 p`` messages one after the other. What is ``exchanged`` takes the first half of a sum, and is
    not summed up for everybody.
    """
    part = math.ceil(work.rows / count) / work.rows
    flops = work.shared * part + work.repeated + work.solved
    read = (work.read * part + work.held) / device.bandwidth
    compute = max(flops / device.flops, read)
    sent = (count - 1) / count * (2 * work.reduced + work.exchanged)
    messages = (2 * work.sums + (1 if work.exchanged else 0)) * math.ceil(math.log2(count))
    communicate = sent / device.link + messages * device.latency + work.from_host * part / device.host
    alone = spent(work, device, 1).seconds if count > 1 else compute
    seconds = compute + communicate
    return Spent(
        count,
        flops,
        sent,
        work.held + work.divided * part,
        compute,
        communicate,
        seconds,
        alone / (count * seconds),
    )


def table(work: Work, device: Device, counts: list[int]) -> str:
    """The plan in lines."""
    names = ("devices", "GFLOP each", "MB sent each", "GB held each", "compute ms", "send ms", "step ms", "efficiency")
    lines = ["  ".join(f"{name:>12}" for name in names)]
    for count in counts:
        s = spent(work, device, count)
        values = (s.flops / 1e9, s.sent / 1e6, s.memory / 1e9, 1e3 * s.compute, 1e3 * s.communicate, 1e3 * s.seconds)
        short = "" if s.memory <= device.memory else "  does not fit"
        cells = [f"{count:>12}", *(f"{value:>12.4g}" for value in values), f"{100 * s.efficiency:>10.1f} %"]
        lines.append("  ".join(cells) + short)
    return "\n".join(lines)


def define() -> None:
    flags.DEFINE_enum("method", "kip", sorted(PLANS), "Whose step.")
    flags.DEFINE_integer("targets", 60_000, "Targets of a step (label_solve: all).", lower_bound=1)
    flags.DEFINE_integer("support", 100, "Distilled images.", lower_bound=1)
    flags.DEFINE_integer("classes", 10, "Classes.", lower_bound=1)
    flags.DEFINE_integer("features", 784, "kip, label_solve: pixels and channels of an image.", lower_bound=1)
    flags.DEFINE_integer("block", 4096, "kip, label_solve: targets at a time; 0 for all.", lower_bound=0)
    flags.DEFINE_integer(
        "depth", 0, "Layers of the kernel (0: 1) or convolutions of the network (0: 3).", lower_bound=0
    )
    flags.DEFINE_integer("side", 28, "rcig: side of the images.", lower_bound=4)
    flags.DEFINE_integer("channels", 1, "rcig: their channels.", lower_bound=1)
    flags.DEFINE_integer("width", 128, "rcig: width of the network.", lower_bound=1)
    flags.DEFINE_enum("data_on", "each", DATA_ON, "Where the data set lies, as config.data_on.")
    flags.DEFINE_integer("dataset", 0, "Rows of the data set (0: the targets of a step).", lower_bound=0)
    flags.DEFINE_list("devices", ["1", "2", "4", "8", "16", "64", "256", "1024"], "Numbers of devices.")
    flags.DEFINE_float("flops", 3e13, "Operations a second of a device, as it reaches them.", lower_bound=1)
    flags.DEFINE_float("bandwidth", 1e12, "Bytes a second from its memory.", lower_bound=1)
    flags.DEFINE_float("link", 5e10, "Bytes a second from device to device.", lower_bound=1)
    flags.DEFINE_float("host", 1e10, "Bytes a second from host to device.", lower_bound=1)
    flags.DEFINE_float("latency", 1e-5, "Seconds of a message between devices.", lower_bound=0)
    flags.DEFINE_float("memory", 8e10, "Bytes of memory of a device.", lower_bound=1)


def main() -> None:
    counts = [int(text) if text.isdigit() else 0 for text in FLAGS.devices]
    checks.require(min(counts, default=0) > 0, "--devices", f"{','.join(FLAGS.devices)}; expected numbers from 1 on")
    shared = {name: FLAGS[name].value for name in ("targets", "support", "classes")}
    if FLAGS.method == "rcig":
        own = {name: FLAGS[name].value for name in ("side", "channels", "width")} | {"depth": FLAGS.depth or 3}
    else:
        own = {name: FLAGS[name].value for name in ("features", "block")} | {"depth": FLAGS.depth or 1}
    device = Device(*(FLAGS[name].value for name in Device._fields))
    words = ", ".join(f"{name} {value}" for name, value in (shared | own).items())
    print(f"{FLAGS.method}: {words}")
    print("  ".join(f"{name} {value:g}" for name, value in device._asdict().items()) + "  (stated, not measured)")
    dataset = FLAGS.dataset or FLAGS.targets
    checks.at_least("--dataset", "dataset", dataset, FLAGS.targets)
    features = own["features"] if "features" in own else own["side"] ** 2 * own["channels"]
    work = PLANS[FLAGS.method](**shared, **own)
    work = placed(work, FLAGS.data_on, dataset=dataset, features=features, classes=FLAGS.classes)
    print(f"a data set of {dataset} rows, on {FLAGS.data_on}")
    print(table(work, device, counts))


if __name__ == "__main__":
    cli.run(main, define)
