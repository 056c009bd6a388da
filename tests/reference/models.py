"""Networks in NumPy, float64, from their papers; parameters come as the flax tree that the network under test has."""

import numpy as np


def convolve(x, kernel, bias=0.0, stride=1, padding=((1, 1), (1, 1))):
    """One output pixel after the other."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    kernel = np.asarray(kernel, np.float64)
    kh, kw, _, features = kernel.shape
    oh, ow = (x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1
    out = np.empty((len(x), oh, ow, features))
    for i in range(oh):
        for j in range(ow):
            window = x[:, stride * i : stride * i + kh, stride * j : stride * j + kw]
            out[:, i, j] = np.tensordot(window, kernel, 3)
    return out + bias


def pool(x, kind="avg"):
    n, h, w, c = x.shape
    out = np.empty((n, h // 2, w // 2, c))
    for i in range(h // 2):
        for j in range(w // 2):
            square = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            out[:, i, j] = square.mean((1, 2)) if kind == "avg" else square.max((1, 2))
    return out


def standardise(x, kind, groups=4, eps=1e-5):
    """``(x - mean) / sqrt(var + eps)``, mean and variance taken value by value as the papers index them."""
    x = np.asarray(x, np.float64)
    out = np.empty_like(x)
    c = x.shape[-1]
    if kind == "batch":
        parts = [(..., p) for p in range(c)]
    elif kind == "layer":
        parts = [(i,) for i in range(len(x))]
    else:
        size = 1 if kind == "instance" else c // groups
        parts = [(i, ..., slice(p, p + size)) for i in range(len(x)) for p in range(0, c, size)]
    for part in parts:
        out[part] = (x[part] - x[part].mean()) / np.sqrt(x[part].var() + eps)
    return out


class Network:
    """Forward passes with running statistics where there is batch norm; norm layers are those in ``params``."""

    def __init__(self, variables, norm="none"):
        self.params, self.stats, self.kind = variables["params"], variables.get("batch_stats", {}), norm

    def conv(self, x, name, stride=1, padding=1):
        p = self.params[name]
        return convolve(x, p["kernel"], p.get("bias", 0.0), stride, ((padding, padding),) * 2)

    def norm(self, x, name):
        if self.kind == "none":
            return x
        p = self.params[name]
        if self.kind == "batch":
            y = (x - self.stats[name]["mean"]) / np.sqrt(self.stats[name]["var"] + 1e-5)
        else:
            y = standardise(x, self.kind)
        return y * p["scale"] + p["bias"]

    def dense(self, x, name):
        return x @ np.asarray(self.params[name]["kernel"], np.float64) + self.params[name]["bias"]

    def convnet(self, x, depth, placement, first_padding, stem=False, pooling="avg"):
        if stem:
            x = relu(self.conv(x, "stem"))
        for i in range(depth):
            if placement == "before" and (i > 0 or stem):
                x = self.norm(x, f"norm{i}")
            x = self.conv(x, f"conv{i}", padding=first_padding if i == 0 else 1)
            if placement == "after":
                x = self.norm(x, f"norm{i}")
            x = relu(x)
            x = x if pooling == "none" else pool(x, pooling)
        return self.dense(x.reshape(len(x), -1), "head")

    def lenet(self, x, first_padding):
        x = pool(relu(self.norm(self.conv(x, "conv0", padding=first_padding), "norm0")), "max")
        x = pool(relu(self.norm(self.conv(x, "conv1", padding=0), "norm1")), "max").reshape(len(x), -1)
        return self.dense(relu(self.dense(relu(self.dense(x, "dense0")), "dense1")), "head")

    def mlp(self, x):
        x = np.asarray(x, np.float64).reshape(len(x), -1)
        for i in range(sum(name.startswith("dense") for name in self.params)):
            x = relu(self.norm(self.dense(x, f"dense{i}"), f"norm{i}"))
        return self.dense(x, "head")

    def resnet18(self, x, pooled=False):
        x = relu(self.norm(self.conv(x, "stem_conv"), "stem_norm"))
        for name in (f"stage{s}_block{b}" for s in range(4) for b in range(2)):
            new_stage = name in ("stage1_block0", "stage2_block0", "stage3_block0")
            stride = 2 if new_stage and not pooled else 1
            h = relu(self.norm(self.conv(x, f"{name}_conv0", stride), f"{name}_norm0"))
            h = pool(h) if new_stage and pooled else h
            h = self.norm(self.conv(h, f"{name}_conv1"), f"{name}_norm1")
            if new_stage:
                x = self.conv(x, f"{name}_shortcut_conv", stride, padding=0)
                x = self.norm(pool(x) if pooled else x, f"{name}_shortcut_norm")
            x = relu(x + h)
        return self.dense(x.reshape(len(x), -1) if pooled else x.mean((1, 2)), "head")

    def wide_resnet(self, x, blocks):
        x = self.conv(x, "stem_conv")
        for stage in range(3):
            for block in range(blocks):
                name, stride = f"stage{stage}_block{block}", 2 if stage and block == 0 else 1
                h = relu(self.norm(x, f"{name}_norm0"))
                x = self.conv(h, f"{name}_shortcut_conv", stride, 0) if f"{name}_shortcut_conv" in self.params else x
                h = self.conv(h, f"{name}_conv0", stride)
                x = x + self.conv(relu(self.norm(h, f"{name}_norm1")), f"{name}_conv1")
        return self.dense(relu(self.norm(x, "last_norm")).mean((1, 2)), "head")

    def cifar_resnet(self, x, blocks):
        x = relu(self.norm(self.conv(x, "stem_conv"), "stem_norm"))
        for stage in range(3):
            for block in range(blocks):
                name, stride = f"stage{stage}_block{block}", 2 if stage and block == 0 else 1
                h = relu(self.norm(self.conv(x, f"{name}_conv0", stride), f"{name}_norm0"))
                h = self.norm(self.conv(h, f"{name}_conv1"), f"{name}_norm1")
                if stride == 2:
                    x = self.norm(self.conv(x, f"{name}_shortcut_conv", 2, padding=0), f"{name}_shortcut_norm")
                x = x + h if (stage, block) == (2, blocks - 1) else relu(x + h)
        return self.dense(x.mean((1, 2)), "head")


def relu(x):
    return np.maximum(x, 0.0)
