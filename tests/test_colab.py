"""The notebooks are sound, use public names alone, and run from top to bottom; their outputs are those of a run."""

import ast
import base64
import importlib.util
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import kipjax

FOLDER = pathlib.Path(__file__).parents[1] / "colab"
SPEC = importlib.util.spec_from_file_location("colab_run", FOLDER / "run.py")
run = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run)


def test_every_notebook_is_listed():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(run.NAMES)


@pytest.mark.parametrize("name", run.NAMES)
def test_it_is_a_notebook_of_format_4_5(name):
    notebook = run.load(name)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3" and notebook["metadata"]["language_info"]["name"]
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", i) for i in ids)
    for cell in notebook["cells"]:
        own = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == (own | {"execution_count", "outputs"} if cell["cell_type"] == "code" else own)
        assert cell["cell_type"] in ("code", "markdown") and cell["metadata"] == {}
        assert all(isinstance(line, str) and line.endswith("\n") for line in cell["source"][:-1])
        assert cell["source"][-1].strip() == cell["source"][-1].rstrip("\n").strip() and cell["source"][-1][-1] != "\n"
    assert notebook["cells"][0]["cell_type"] == "markdown"


@pytest.mark.parametrize("name", run.NAMES)
def test_its_first_cell_is_the_one_that_installs(name):
    assert "".join(run.cells(run.load(name))[0]["source"]) == run.install()


@pytest.mark.parametrize("where", ["installed", "clone", "colab", "nowhere"])
def test_what_installs(where, tmp_path, monkeypatch):
    """Nothing is installed where kipjax is at hand, as in a clone without a network."""
    called = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: called.append(command[1:]))
    monkeypatch.setattr(sys, "path", list(sys.path))
    if where != "installed":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "colab").mkdir()
    monkeypatch.chdir(tmp_path / "colab")
    if where == "clone":
        (tmp_path / "kipjax").mkdir()
        (tmp_path / "kipjax" / "types.py").touch()
    source = "git+https://somewhere/kipjax"
    cell = run.INSTALL.replace("{source}", source if where == "colab" else "")
    before = list(sys.path)
    if where == "nowhere":
        with pytest.raises(ImportError, match="set SOURCE"):
            exec(cell, {})
    else:
        exec(cell, {})
    assert called == ([["-m", "pip", "install", "--quiet", source]] if where == "colab" else [])
    assert sys.path == ([str(tmp_path)] if where == "clone" else []) + before


def test_the_address_is_that_of_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "FOLDER", tmp_path / "colab")
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://somewhere/kipjax"\n')
    assert 'SOURCE = "git+https://somewhere/kipjax"  #' in run.install()


@pytest.mark.parametrize("name", run.NAMES)
def test_it_was_run_and_its_outputs_are_of_the_run(name):
    cells = run.cells(run.load(name))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert set(kinds) == {"stream", "display_data"}
    for output in (output for cell in cells for output in cell["outputs"]):
        if output["output_type"] == "stream":
            assert set(output) == {"name", "output_type", "text"} and output["name"] == "stdout"
        else:
            assert set(output) == {"data", "metadata", "output_type"}
            assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG")
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 300_000


@pytest.mark.parametrize("name", run.NAMES)
def test_it_writes_as_it_reads(name, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    (tmp_path / f"{name}.ipynb").write_text(text, encoding="utf-8")
    run.save(name, run.load(name))
    assert (tmp_path / f"{name}.ipynb").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", run.NAMES)
def test_it_uses_public_names_alone(name):
    """Every dotted name that starts with kipjax leads somewhere, without an underscore."""
    code = "\n".join("".join(cell["source"]) for cell in run.cells(run.load(name)))
    used = set()
    for node in ast.walk(ast.parse(code)):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id == "kipjax" and parts:
            used.add(tuple(reversed(parts)))
    assert used
    for parts in used:
        found = kipjax
        for part in parts:
            assert not part.startswith("_") or part == "_replace", parts
            found = getattr(found, part)


NUMBER = r"(?<![\w.-])-?\d+(?:\.\d+)?"


def compare(name):
    """The notebook runs, and each cell shows what kind of thing it showed and prints the same words; its numbers are
    about those that are stored, but for what follows ±."""
    notebook = run.load(name)
    outputs = run.execute(notebook)
    for cell, found in zip(run.cells(notebook), outputs, strict=True):
        assert [o["output_type"] for o in found] == [o["output_type"] for o in cell["outputs"]], cell["id"]
        for ours, stored in zip(found, cell["outputs"]):
            if ours["output_type"] == "stream":
                texts = [re.sub(r"± [\d.]+|± nan", "±", "".join(o["text"])) for o in (ours, stored)]
                words = [re.sub(NUMBER, "#", text).split() for text in texts]
                assert words[0] == words[1], cell["id"]
                numbers = [[float(number) for number in re.findall(NUMBER, text)] for text in texts]
                np.testing.assert_allclose(*numbers, rtol=0.15, err_msg=cell["id"])
    return "".join(line for found in outputs for o in found for line in o.get("text", []))


def test_quickstart_runs():
    printed = compare("quickstart")
    accuracies = [float(a) for a in re.findall(r"images\s+([\d.]+)", printed)]
    assert accuracies[0] > 90 > accuracies[1] + 10  # distilled, random subset
    real, solved = (float(re.search(rf"{kind} labels\s+([\d.]+)", printed).group(1)) for kind in ("real", "solved"))
    assert solved > real


@pytest.mark.slow
def test_rcig_runs():
    distilled, subset = (float(a) for a in re.findall(r"images\s+([\d.]+) ±", compare("rcig"))[:2])
    assert distilled > subset


@pytest.mark.slow
def test_methods_run():
    found = dict(re.findall(r"(\w+)\s+fc1 ridge\s+([\d.]+)", compare("methods")))
    assert len(found) == 9 and all(float(value) > float(found["start"]) for n, value in found.items() if n != "start")


@pytest.mark.slow
def test_applications_run():
    rows = re.findall(r"rho ([\d.]+)\s+natural\s+([\d.]+) %\s+KIP\s+([\d.]+)", compare("applications"))
    assert all(float(kip) > float(natural) for _, natural, kip in rows) and len(rows) == 3
