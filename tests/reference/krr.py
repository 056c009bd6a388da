"""Kernel ridge regression as arXiv:2011.00050 writes it, in NumPy."""

import numpy as np


def inverse(k_ss, reg, reg_unit):
    m = len(k_ss)
    lam = reg * np.trace(k_ss) / m if reg_unit == "trace" else reg
    return np.linalg.inv(k_ss + lam * np.eye(m))


def predict(k_ss, k_ts, y_s, reg, reg_unit="trace"):
    return k_ts @ inverse(k_ss, reg, reg_unit) @ y_s


def loss(k_ss, k_ts, y_s, y_t, reg, reg_unit="trace"):
    """Equation (7), divided by the number of entries."""
    total = 0.0
    f = predict(k_ss, k_ts, y_s, reg, reg_unit)
    for i in range(y_t.shape[0]):
        for c in range(y_t.shape[1]):
            total += 0.5 * (y_t[i, c] - f[i, c]) ** 2
    return total / y_t.size


def solve_labels(k_ss, k_ts, y_t, reg, reg_unit="trace", rcond=1e-15):
    """Equation (8)."""
    return np.linalg.pinv(k_ts @ inverse(k_ss, reg, reg_unit), rcond=rcond) @ y_t


def rbf(a, b, gamma=1.0):
    out = np.empty((len(a), len(b)))
    for i, u in enumerate(a):
        for j, v in enumerate(b):
            out[i, j] = np.exp(-gamma * np.sum((u - v) ** 2) / u.size)
    return out


def rbf_kip_gradient(x_s, y_s, x_t, y_t, reg, gamma=1.0):
    """Gradient of the KIP loss in the support, by central differences."""
    grad = np.zeros_like(x_s)
    eps = 1e-6
    for index in np.ndindex(*x_s.shape):
        sides = []
        for sign in (1, -1):
            x = x_s.copy()
            x[index] += sign * eps
            sides.append(loss(rbf(x, x, gamma), rbf(x_t, x, gamma), y_s, y_t, reg))
        grad[index] = (sides[0] - sides[1]) / (2 * eps)
    return grad
