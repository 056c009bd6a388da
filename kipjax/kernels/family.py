"""Random kernel families: one kernel drawn at each step, so that a set fits no single one (arXiv:2011.00050)."""

from collections.abc import Sequence
from typing import Any

import jax

from kipjax.checks import one_of, require
from kipjax.kernels import infinite
from kipjax.types import KernelFn

__all__ = ["FAMILIES", "draw", "members"]

FAMILIES = {
    "fc1-3+conv1-3": ((1, 2, 3), (1, 2, 3)),
    "fc1-3+conv1-2": ((1, 2, 3), (1, 2)),
}
"""Depths of the fully connected and of the convolutional members of each family that the KIP paper uses."""


def draw(key: jax.Array, kernels: Sequence[KernelFn]) -> KernelFn:
    """One of ``kernels``, each as likely as the others.

    The choice is data, not structure: under jit every member is compiled once and only the drawn one runs (under vmap
    over keys all of them do). It is differentiable like its members.

    Args:
      key: from ``jax.random.key``.
      kernels: kernel functions that accept the same inputs; convolutional ones need images.

    Returns:
      A kernel function that is the same member at every call.

    Raises:
      InputError: ``kernels`` is empty.
    """
    kernels = tuple(kernels)
    require(len(kernels) > 0, "kernels.family.draw", "kernels is empty; it needs at least one kernel function")
    index = jax.random.randint(key, (), 0, len(kernels))

    def kernel_fn(x1: jax.Array, x2: jax.Array) -> jax.Array:
        if x1 is x2:  # as one operand, so that the members see a square matrix and keep its diagonal exact
            return jax.lax.switch(index, [lambda x, k=k: k(x, x) for k in kernels], x1)
        return jax.lax.switch(index, kernels, x1, x2)

    return kernel_fn


def members(name: str, *, parameterization: infinite.Parameterization = "standard", **options: Any) -> list[KernelFn]:
    """The kernels of a family named in ``FAMILIES``, with widths 1024 (fc) and 128 (conv).

    Args:
      name: ``"fc1-3+conv1-3"`` (the AvgAll column of figure A1) or ``"fc1-3+conv1-2"`` (network transfer tables).
      parameterization: ``"standard"`` as in the paper, or ``"ntk"``.
      **options: ``w_std``, ``b_std``, ``get``, ... as in ``infinite.fc``, for all members.

    Raises:
      InputError: the family is unknown.
    """
    one_of("kernels.family.members", "name", name, FAMILIES)
    fc_depths, conv_depths = FAMILIES[name]
    options = {"parameterization": parameterization, **options}
    return [infinite.fc(d, **options) for d in fc_depths] + [infinite.conv(d, **options) for d in conv_depths]
