"""Distances of matching methods in NumPy, float64, one row after the other; tensors as PyTorch lays them out."""

import numpy as np


def rows(tensor):
    """The rows of a tensor ``[out, in, kh, kw]``, ``[out, in]`` or ``[c, h, w]``; nothing of a vector."""
    tensor = np.asarray(tensor, np.float64)
    return [part.reshape(-1) for part in tensor] if tensor.ndim > 1 else []


def dc(tensors1, tensors2):
    total = 0.0
    for a, b in zip(tensors1, tensors2):
        for x, y in zip(rows(a), rows(b)):
            total += 1 - np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-6)
    return total


def everything(tensors):
    return np.concatenate([np.ravel(np.asarray(tensor, np.float64)) for tensor in tensors])


def mse(tensors1, tensors2):
    return np.sum((everything(tensors1) - everything(tensors2)) ** 2)


def cosine(tensors1, tensors2):
    a, b = everything(tensors1), everything(tensors2)
    return 1 - np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-6)


def torch_layout(tensor):
    """From flax: the last axis, that of the outputs, first; a kernel ``[kh, kw, in, out]`` to ``[out, in, kh, kw]``."""
    tensor = np.asarray(tensor, np.float64)
    return tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else np.moveaxis(tensor, -1, 0)


def students(start, gradients, lr):
    """SGD with given gradients, one for each step."""
    theta = np.asarray(start, np.float64).copy()
    for gradient in gradients:
        theta = theta - lr * gradient(theta)
    return theta
