"""Kernels of infinitely wide ReLU networks written out in NumPy, float64, every pair of pixels, nothing left out.

State of a pair of image batches: ``k [n1, n2, p, q]`` the covariance and ``t`` the tangent kernel between pixel p of an
image of the first batch and pixel q of one of the second, and ``c1 [n1, p, p']``, ``c2`` the covariances within each
image. A vector is an image of one pixel.
"""

import numpy as np


def kernel(
    architecture, x1, x2, *, get="ntk", w_std=2**0.5, b_std=0.1, parameterization="ntk", width=None, readout="ntk"
):
    """``architecture`` is a list of "dense", "conv", "pool", "flatten", "gap"; ReLUs and the readout are implied."""
    bias, weight = (0.0 if b_std is None else b_std**2), w_std**2
    if "conv" not in architecture:
        x1, x2 = (x.reshape(len(x), 1, 1, -1) for x in (x1, x2))
    size, fan_in = x1.shape[1:3], x1.shape[3]
    x1, x2 = (np.asarray(x, np.float64).reshape(len(x), -1, x.shape[3]) for x in (x1, x2))
    same = (x1[:, None] == x2[None]).all((2, 3))
    k = np.einsum("aic,bjc->abij", x1, x2) / fan_in
    c1 = np.einsum("aic,ajc->aij", x1, x1) / fan_in
    c2 = np.einsum("aic,ajc->aij", x2, x2) / fan_in
    t = np.zeros_like(k)

    def affine(k, t, spread, fan, kind):
        k, t = spread(k), spread(t)
        if kind == "ntk":
            return weight * k + bias, weight * k + bias + weight * t
        return weight * k + bias, fan * k + weight * t + (b_std is not None)

    for word in architecture:
        if word in ("dense", "conv"):
            spread = (lambda a: a) if word == "dense" else (lambda a, size=size: _convolve(a, size))
            k, t = affine(k, t, spread, fan_in * (9 if word == "conv" else 1), parameterization)
            c1, c2 = weight * spread(c1) + bias, weight * spread(c2) + bias
            k, t = _relu(k, t, np.einsum("aii->ai", c1)[:, None], np.einsum("aii->ai", c2)[None], same)
            c1, c2 = (_relu(c, c, np.einsum("aii->ai", c), np.einsum("aii->ai", c), True)[0] for c in (c1, c2))
            fan_in = width
        elif word == "pool":
            k, t, c1, c2 = (_pool(a, size) for a in (k, t, c1, c2))
            size = (size[0] // 2, size[1] // 2)
        elif word == "flatten":
            k, t = (np.einsum("abii->ab", a)[..., None, None] / a.shape[-1] for a in (k, t))
            fan_in = fan_in * size[0] * size[1]
        elif word == "gap":
            k, t = (a.mean((2, 3), keepdims=True) for a in (k, t))
    k, t = affine(k, t, lambda a: a, fan_in, readout)
    return (t if get == "ntk" else k)[:, :, 0, 0]


def _relu(k, t, v1, v2, same):
    """``v1``, ``v2`` are the variances of the pixels; a pixel of an image makes the angle 0 with itself, exactly."""
    product = v1[..., :, None] * v2[..., None, :]
    root = np.sqrt(np.maximum(product - k**2, 0.0))
    itself = np.eye(k.shape[-2], k.shape[-1], dtype=bool) & (np.asarray(same)[..., None, None])
    root = np.where(itself, 0.0, root)
    angle = np.where((root == 0) & (k == 0), np.pi / 2, np.arctan2(root, k))
    return root / (2 * np.pi) + k * (0.5 - angle / (2 * np.pi)), t * (0.5 - angle / (2 * np.pi))


def _convolve(a, size):
    """``out[i, j] = sum over the nine shifts d of a[i + d, j + d] / 9``, zero outside the images."""
    h, w = size
    out = np.zeros_like(a)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            shift = np.zeros((h * w, h * w))
            for y in range(h):
                for x in range(w):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        shift[y * w + x, (y + dy) * w + x + dx] = 1.0
            out += shift @ a @ shift.T / 9
    return out


def _pool(a, size):
    """Mean over the 2 x 2 x 2 x 2 blocks of pixel pairs; a last odd row or column is dropped."""
    h, w = size
    average = np.zeros(((h // 2) * (w // 2), h * w))
    for y in range(h // 2 * 2):
        for x in range(w // 2 * 2):
            average[(y // 2) * (w // 2) + x // 2, y * w + x] = 0.25
    return average @ a @ average.T
