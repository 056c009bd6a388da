"""Dataset distillation of a linear softmax classifier, step by step in NumPy (arXiv:1811.10959, arXiv:1910.02551)."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def trained(w, batches, step_sizes):
    """``w [d, k]`` after gradient steps on ``batches``, a list of ``(x [b, d], y [b, k])`` taken in turn."""
    for t, step_size in enumerate(step_sizes):
        x, y = batches[t % len(batches)]
        residual = y.sum(axis=1, keepdims=True) * softmax(x @ w) - y
        w = w - step_size * x.T @ residual / len(x)
    return w


def outer_loss(w, batches, step_sizes, x, classes):
    p = softmax(x @ trained(w, batches, step_sizes))
    return -np.mean(np.log(p[np.arange(len(x)), classes]))


def difference(f, x, index, eps=1e-6):
    """Central difference of ``f`` at one entry of ``x``."""
    up, down = x.copy(), x.copy()
    up[index] += eps
    down[index] -= eps
    return (f(up) - f(down)) / (2 * eps)
