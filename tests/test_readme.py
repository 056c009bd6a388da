"""The README's Python runs, and the commands and files that it names exist."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_python_examples_run_as_they_stand():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {}
    for block in blocks:
        if "import torch" in block:  # tests/experiments/test_convert.py runs it where PyTorch is installed
            continue
        exec(compile(block, "README.md", "exec"), names)
    assert names["method"].distilled(names["state"]).x.shape == (10, 8, 8, 1)
    assert names["infos"].loss[-1] < names["infos"].loss[0]
    assert float(names["infos"].accuracy[-1]) > 0.9
    lines = [line for line in blocks[0].splitlines() if line.strip()]
    assert len(lines) < 10


def test_named_files_exist():
    for path in re.findall(r"`((?:kipjax|configs|experiments)/[\w/.]*)`", TEXT) + re.findall(
        r"--config=(\S+\.py)", TEXT
    ):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
