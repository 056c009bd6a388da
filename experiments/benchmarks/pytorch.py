"""Steps of the matching methods beside the same steps written in PyTorch, class by class and eagerly, as published.

What PyTorch is given is the arithmetic of DC, DSA and DM at the ConvNet, on random images in the place of real ones and
without augmentation, which is to its advantage.
"""

import functools
import time

from configs.dc import images as dc_config
from configs.dm import images as dm_config
from configs.dsa import images as dsa_config
from experiments import build
from experiments.benchmarks import harness
from kipjax.methods import dc

__all__ = ["ROWS"]


def _row(name, config, ipc) -> harness.Row:
    """A matching step with the training of the network that follows it."""
    config = config.get_config(str(ipc))
    other = Steps(name, config.model.width, ipc, config.batch.size)
    text = f"{name.upper()} step, width {config.model.width}, {ipc} a class / PyTorch {other.torch.__version__}"
    return harness.compare(text, "ms", harness.scanned(build.experiment(config), 1), other, "< 1, aim 0.5")


class Steps:
    """Seconds of a step; the network is drawn anew after as many as the paper takes at one."""

    def __init__(self, name, width, ipc, real, classes=10, side=28):
        try:
            import torch
        except ImportError:
            raise harness.Skipped("PyTorch is not installed: pip install torch") from None
        self.torch, self.name, self.width, self.classes = torch, name, width, classes
        torch.manual_seed(0)
        self.real = torch.randn(classes, real, 1, side, side)
        self.images = torch.randn(classes, ipc, 1, side, side, requires_grad=True)
        self.outer, self.inner = (1, 0) if name == "dm" else dc.loops(ipc)
        self.optimizer = torch.optim.SGD([self.images], lr=1.0 if name == "dm" else 0.1, momentum=0.5)
        self.place = 0

    def __call__(self):
        began = time.perf_counter()
        if self.place == 0:
            self.net = self.network()
        else:
            self._train()
        loss = sum(self.distance(c) for c in range(self.classes))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.place = (self.place + 1) % self.outer
        loss.item()
        return time.perf_counter() - began

    def network(self):
        nn, layers = self.torch.nn, []
        for depth in range(3):
            layers += [nn.Conv2d(self.width if depth else 1, self.width, 3, padding=1 if depth else 3)]
            layers += [nn.GroupNorm(self.width, self.width), nn.ReLU(), nn.AvgPool2d(2)]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(self.width * 16, self.classes))
        return net.requires_grad_(self.name != "dm")  # whose images alone are differentiated

    def distance(self, c):
        if self.name == "dm":  # section 3.2 of arXiv:2110.04181: features before the last layer
            with self.torch.no_grad():
                mean = self.net[:-1](self.real[c]).mean(0)
            return ((self.net[:-1](self.images[c]).mean(0) - mean) ** 2).sum()
        params = list(self.net.parameters())
        real = self.torch.autograd.grad(self._loss(self.real[c], c), params)
        made = self.torch.autograd.grad(self._loss(self.images[c], c), params, create_graph=True)
        return sum(self._rows(a, b) for a, b in zip(made, real))

    def _rows(self, a, b):
        """A layer's distance of arXiv:2006.05929, section 2.3: 1 less the cosine, summed over the outputs."""
        if a.ndim == 1:
            return 0.0
        a, b = a.flatten(1), b.flatten(1)
        return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()

    def _loss(self, x, c):
        return self.torch.nn.functional.cross_entropy(self.net(x), self.torch.full((len(x),), c))

    def _train(self):
        x = self.images.detach().flatten(0, 1)
        y = self.torch.arange(self.classes).repeat_interleave(len(x) // self.classes)
        optimizer = self.torch.optim.SGD(self.net.parameters(), lr=0.01)
        for _ in range(self.inner):
            optimizer.zero_grad()
            self.torch.nn.functional.cross_entropy(self.net(x), y).backward()
            optimizer.step()


ROWS: harness.Rows = {
    "dc_torch": functools.partial(_row, "dc", dc_config, 1),
    "dm_torch": functools.partial(_row, "dm", dm_config, 10),
    "dsa_torch": functools.partial(_row, "dsa", dsa_config, 10),
}
