"""Coresets by a network: it is trained on the whole set, and images are chosen by its features or by what it forgot.

The baselines of Zhao, Mopuri, Bilen, "Dataset Condensation with Gradient Matching", arXiv:2006.05929: herding and
farthest-first centres on last-layer features of a network trained on the training set; k-means on them as in DC-BENCH
(arXiv:2207.09639); forgetting events of Toneva et al., arXiv:1812.05159. One step: it trains, then chooses.

- Training: SGD with momentum and weight decay on the cross-entropy, every image once an epoch in a new order.
- An image is forgotten where the network has it right at one presentation and wrong at the next, both before the
  update. Those forgotten most often are kept; what was never right counts as forgotten without end.
"""

import math

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import losses, selection
from kipjax.methods import coreset, inputs
from kipjax.methods.coreset import Info, State
from kipjax.models import network
from kipjax.types import Batch, Distilled, Method, PyTree

__all__ = ["SELECTIONS", "Info", "State", "make", "train"]

SELECTIONS = ("herding", "k_center", "k_means", "forgetting")


def make(
    model: nn.Module,
    *,
    select: str = "herding",
    epochs: int = 20,
    batch_size: int = 256,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    block_size: int = 1000,
) -> Method:
    """A coreset as a ``Method`` of one step.

    Args:
      model: network with features (``models.network``).
      select: a name in ``SELECTIONS``.
      epochs: passes over the batch; the papers do not give a number.
      batch_size: images of a training step.
      learning_rate, momentum, weight_decay: of SGD; as in the papers' training of networks.
      block_size: images that go through the trained network at once.

    Returns:
      The method; its batch is the set to choose from, ``x [n, ...]``, ``y [n, k]``. Of the start only the size counts.

    Raises:
      InputError: a value is outside its range, or the model has no features; later as in ``coreset``.
    """
    where = "network_coreset.make"
    network.require_features(where, model)
    checks.one_of(where, "select", select, SELECTIONS)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("block_size", block_size)):
        checks.whole(where, name, value)
    checks.at_least(where, "learning_rate", learning_rate, 0.0, strict=True)
    checks.within(where, "momentum", momentum, 0.0, 1.0)
    checks.at_least(where, "weight_decay", weight_decay, 0.0)
    optimizer = optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum))

    def init(key, distilled0):
        del key
        return coreset.start("network_coreset.init", distilled0)

    def step(key, state, batch):
        coreset.check_batch("network_coreset.step", state, batch)
        batch = inputs.typed(state.x, batch)
        ipc = state.x.shape[0] // state.y.shape[1]
        train_key, choose_key = jax.random.split(key)
        variables, history = train(train_key, model, optimizer, batch, epochs=epochs, batch_size=batch_size)
        if select == "forgetting":
            rows = selection.best(selection.forgetting_scores(history), selection.members(batch.y), ipc)
            return coreset.chosen(state, batch, rows)
        h = _features(model, variables, batch.x, block_size)
        if select == "k_means":
            rows = coreset.clusters(choose_key, h, selection.members(batch.y), ipc)[0]
        else:
            rule = selection.herding if select == "herding" else selection.k_center
            rows = rule(selection.products(h, batch.y), ipc)
        return coreset.chosen(state, batch, rows)

    return Method(init, step, lambda state: Distilled(state.x, state.y))


def train(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    *,
    epochs: int,
    batch_size: int,
) -> tuple[dict[str, PyTree], selection.Forgetting]:
    """Trains a fresh network on a whole set by cross-entropy, and keeps count of what it forgets.

    Args:
      key: draws the weights and the orders.
      model: flax module.
      optimizer: of its parameters.
      batch: the set, ``x [n, ...]``, ``y [n, k]``, the class being the largest entry.
      epochs: passes over it.
      batch_size: images of a step; the last one of an epoch takes what is left.

    Returns:
      ``(variables, history)``.
    """
    n = len(batch.y)
    size = min(batch_size, n)
    init_key, order_key = jax.random.split(key)
    classes = lax.argmax(batch.y, 1, jnp.int32)
    variables = network.init(model, init_key, batch.x)

    def loss(params, variables, rows):
        logits, statistics = network.train_forward(model, {**variables, "params": params}, batch.x[rows])
        return losses.cross_entropy(logits, classes[rows]), (logits, statistics)

    def present(carry, rows):
        variables, opt_state, history = carry
        gradient, (logits, statistics) = jax.grad(loss, has_aux=True)(variables["params"], variables, rows)
        updates, opt_state = optimizer.update(gradient, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        history = selection.forget(history, rows, lax.argmax(logits, 1, jnp.int32) == classes[rows])
        return ({**variables, **statistics, "params": params}, opt_state, history), None

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(order_key, number), n)
        whole = n // size * size
        carry, _ = lax.scan(present, carry, order[:whole].reshape(-1, size))
        return present(carry, order[whole:]) if n % size else (carry, None)

    start = variables, optimizer.init(variables["params"]), selection.never_seen(n)
    (variables, _, history), _ = lax.scan(epoch, start, jnp.arange(epochs))
    return variables, history


def _features(model, variables, x, block_size):
    """``[n, p]``, some images at a time."""
    n = len(x)
    count = math.ceil(n / block_size)
    size = math.ceil(n / count)
    padded = jnp.pad(x, [(0, count * size - n), *[(0, 0)] * (x.ndim - 1)])
    blocks = padded.reshape(count, size, *x.shape[1:])
    h = lax.map(lambda block: network.forward(model, variables, block)[1], blocks)
    return h.reshape(count * size, -1)[:n]
