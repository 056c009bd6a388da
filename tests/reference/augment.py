"""Augmentations as their papers define them, one image and one pixel at a time, in NumPy."""

import numpy as np


def bilinear(image, v, u, outside):
    """Value of ``image [h, w, c]`` at row ``v`` and column ``u``; beyond it "edge" pixels, or "zero"."""
    h, w, _ = image.shape

    def pixel(i, j):
        if outside == "zero" and not (0 <= i < h and 0 <= j < w):
            return np.zeros(image.shape[2])
        return image[min(max(i, 0), h - 1), min(max(j, 0), w - 1)]

    i, j = int(np.floor(v)), int(np.floor(u))
    a, b = v - i, u - j
    upper = (1 - b) * pixel(i, j) + b * pixel(i, j + 1)
    lower = (1 - b) * pixel(i + 1, j) + b * pixel(i + 1, j + 1)
    return (1 - a) * upper + a * lower


def warp(image, matrix, shift, outside):
    """The image at ``matrix p + shift``, with ``p`` counted in pixels from its centre."""
    h, w, _ = image.shape
    centre = np.array([h - 1, w - 1]) / 2
    out = np.empty(image.shape)
    for i in range(h):
        for j in range(w):
            out[i, j] = bilinear(image, *(matrix @ (np.array([i, j]) - centre) + shift + centre), outside)
    return out


def grid_sample(image, theta):
    """PyTorch's affine_grid and grid_sample: zero padding, align_corners=True; ``theta [2, 2]`` acts on (x, y)."""
    h, w, _ = image.shape
    out = np.empty(image.shape)
    for i in range(h):
        for j in range(w):
            x, y = theta @ np.array([-1 + 2 * j / (w - 1), -1 + 2 * i / (h - 1)])
            out[i, j] = bilinear(image, (y + 1) / 2 * (h - 1), (x + 1) / 2 * (w - 1), "zero")
    return out


def brightness(image, value):
    return image + value


def saturation(image, factor):
    mean = image.mean(axis=2, keepdims=True)
    return (image - mean) * factor + mean


def contrast(image, factor):
    return (image - image.mean()) * factor + image.mean()


def diff_cutout(side, centre):
    """Which of ``side`` rows DSA clears for a centre: clamped into the image one by one."""
    size = int(side * 0.5 + 0.5)
    rows = [min(max(i + centre - size // 2, 0), side - 1) for i in range(size)]
    return np.isin(np.arange(side), rows)


def diff_crop(image, down, right):
    """DSA: ``out[i, j] = image[i + down, j + right]``, zero where there is none."""
    h, w, _ = image.shape
    out = np.zeros(image.shape)
    for i in range(h):
        for j in range(w):
            if 0 <= i + down < h and 0 <= j + right < w:
                out[i, j] = image[i + down, j + right]
    return out


def dc_crop(image, row, column, mean):
    """DC: a frame of 4 pixels of the mean around the image, then a window at ``row``, ``column`` of 0..7."""
    h, w, c = image.shape
    framed = np.empty((h + 8, w + 8, c))
    framed[:] = mean
    framed[4 : 4 + h, 4 : 4 + w] = image
    return framed[row : row + h, column : column + w]


def dc_scale(image, rows, columns):
    """DC: nearest-neighbour resize, pasted in the middle of a zero canvas, of which the middle is cut."""
    h, w, c = image.shape
    resized = np.empty((rows, columns, c))
    for i in range(rows):
        for j in range(columns):
            resized[i, j] = image[i * h // rows, j * w // columns]
    side = max(rows, columns, h, w)
    canvas = np.zeros((side, side, c))
    top, left = int((side - rows) / 2), int((side - columns) / 2)
    canvas[top : top + rows, left : left + columns] = resized
    top, left = int((side - h) / 2), int((side - w) / 2)
    return canvas[top : top + h, left : left + w]
