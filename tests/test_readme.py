"""The README's Python runs, and the commands and files that it and the docstrings name exist, down to their flags."""

import importlib
import pathlib
import re

import pytest

from kipjax import evaluation

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "RESULTS.md", "CONTRIBUTING.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py"))
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "experiments").glob("*.py"))
DEFINED = re.compile(r'DEFINE_\w+\(\s*"(\w+)"')


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
    results = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:kipjax|configs|experiments|colab|results|tests)/[\w/.]*)`", TEXT + results):
        assert (ROOT / path).exists(), path
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT + results)
    assert pictures and all((ROOT / path).read_bytes().startswith(b"\x89PNG") for path in pictures)
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def commands(page):
    """``(script, arguments)`` of every command of ours on a page; optional parts and alternatives are all there."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"\n\s+(?=\[?--)", " ", text)  # a long command goes on in the next line
    for script, rest in re.findall(r"python -m experiments\.(\w+)((?:[ ]+\[?--[^\n`]*)?)", text):
        yield script, [word.rstrip(".,;:)]`'") for word in re.findall(r"--[a-z][\w.]*(?:=[^\s\]`\"]+)?", rest)]


def flags(script):
    """The flags that a script or what it calls to define flags defines."""
    source = (ROOT / "experiments" / f"{script}.py").read_text(encoding="utf-8")
    helpers = [ROOT / "experiments" / f"{name}.py" for name in set(re.findall(r"\b(\w+)\.define", source))]
    shared = "".join(path.read_text(encoding="utf-8") for path in helpers if path.exists())
    many = {"nas.WORDS": evaluation.nas.WORDS, "robustness.GRID": evaluation.robustness.GRID}  # flags
    words = {word for name, found in many.items() if name in source for word in found}
    return set(DEFINED.findall(source + shared)) | words | {"help", "list", "flagfile"}


def config_of(text):
    """The config of ``FILE.py:VARIANT``, with placeholders left alone."""
    path, _, variant = text.partition(":")
    assert (ROOT / path).is_file(), path
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config("" if variant.isupper() else variant)


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))])
def test_commands_name_flags_configs_and_fields_that_exist(page):
    for script, arguments in commands(page):
        known, config = flags(script), None
        for name, _, value in (argument.removeprefix("--").partition("=") for argument in arguments):
            if name == "flagfile":
                lines = (ROOT / value).read_text(encoding="utf-8").splitlines()
                own = {line.removeprefix("--").partition("=")[0] for line in lines if line.startswith("--")}
                own = {name if name in known else name.removeprefix("no") for name in own}
                assert {name.split(".")[0] for name in own} <= known, (page, value)
                continue
            assert name.split(".")[0] in known, f"{page}: experiments.{script} has no flag --{name}"
            if name == "config" and value.endswith((".py",)) | (".py:" in value) and not value.startswith("FILE"):
                config = config_of(value)
            if name.startswith("config.") and config is not None and not name.split(".")[1].isupper():
                node = config
                for part in name.split(".")[1:]:
                    assert part in node, f"{page}: {name}"
                    node = node[part]
            if script == "evaluate" and name == "protocol" and not value.isupper():
                assert value in {*evaluation.PROTOCOLS, "flexibility"}, f"{page}: {value}"


def test_the_test_of_commands_reads_them():
    found = list(commands("README.md"))
    assert len(found) > 15 and {script for script, _ in found} >= {"distill", "evaluate", "convert", "sweep", "nas"}
    assert ("distill", "--workdir=runs/dsa") in [(script, argument) for script, rest in found for argument in rest]
    assert "artifact" in flags("evaluate") and "out" in flags("corruption") and "nothing" not in flags("distill")
