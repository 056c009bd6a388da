"""Exact distillation and coresets as the papers write them, in NumPy; examples are columns, as in Chen et al."""

import itertools

import numpy as np


def phi_plus(phi, lam):
    """``phi_lambda(X)^+ [n, p]`` of ``phi [p, n]``."""
    n = phi.shape[1]
    return np.linalg.inv(phi.T @ phi + lam * np.eye(n)) @ phi.T if lam else np.linalg.pinv(phi)


def weights(phi, y, lam):
    """``W [k, p]`` of ``y [k, n]``."""
    return y @ phi_plus(phi, lam)


def all_d(y_s, w, z):
    """``D = Y_S^+ W + (I - Y_S^+ Y_S) Z``."""
    back = np.linalg.pinv(y_s)
    return back @ w + (np.eye(y_s.shape[1]) - back @ y_s) @ z


def phi_from_d(d, lam, sign):
    """``Phi_S [p, m]`` with ``phi_plus(Phi_S, lam) = D``, one singular value at a time."""
    v, s, ut = np.linalg.svd(d, full_matrices=False)
    out = np.zeros(d.T.shape)
    for i, value in enumerate(s):
        if value > 1e-12 * s[0]:
            sigma = (1 + sign * np.sqrt(max(0.0, 1 - 4 * lam * value**2))) / (2 * value)
            out += sigma * np.outer(ut[i], v[:, i])
    return out


def regularized(phi, lam):
    """``X_lambda = (X_lambda^+)^+``."""
    return np.linalg.pinv(phi_plus(phi, lam))


def herding(h, ipc):
    """Rows of ``h [n, p]`` of one class: the one that minimises ``|t mu - sum - f(x)|`` at each ``t``."""
    mean, chosen = h.mean(0), []
    for t in range(1, ipc + 1):
        total = h[chosen].sum(0)
        distances = [np.inf if i in chosen else np.linalg.norm(t * mean - total - f) for i, f in enumerate(h)]
        chosen.append(int(np.argmin(distances)))
    return chosen


def k_center(h, ipc):
    """Nearest to the mean first, then the farthest from its nearest centre."""
    chosen = [int(np.argmin(np.linalg.norm(h - h.mean(0), axis=1)))]
    while len(chosen) < ipc:
        distances = [min(np.linalg.norm(f - h[c]) for c in chosen) for f in h]
        chosen.append(int(np.argmax(distances)))
    return chosen


def forgetting_events(history):
    """``history [presentations, n]`` of right and wrong; infinite for what was never right."""
    events = []
    for column in history.T:
        lost = sum(bool(a) and not b for a, b in itertools.pairwise(column))
        events.append(lost if column.any() else np.inf)
    return np.array(events, float)
