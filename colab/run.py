"""Runs the notebooks from top to bottom and writes what they show into them.

python colab/run.py            # all of them
python colab/run.py rcig       # one

Code cells run in order in one namespace, as a kernel would run them. What a cell prints and the figures that it leaves
open become its outputs. The same results give the same bytes. The tests run the notebooks through ``execute``.

The first code cell, which installs kipjax, is written too, with the address in pyproject.toml's ``[project.urls]``.
"""

import base64
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import tomllib

os.environ.setdefault("MPLBACKEND", "agg")

FOLDER = pathlib.Path(__file__).resolve().parent
NAMES = ("quickstart", "rcig", "methods", "applications")
INSTALL = """\
# Finds kipjax where it is installed or in the clone around this notebook; anywhere else, as on Colab, installs it.
import importlib.util
import pathlib
import subprocess
import sys

SOURCE = "{source}"  # the address of the repository for pip; colab/run.py writes it here
if importlib.util.find_spec("kipjax") is None:
    clones = [str(folder) for folder in pathlib.Path.cwd().parents if (folder / "kipjax" / "types.py").exists()]
    sys.path[:0] = clones[:1]
    if not clones and not SOURCE:
        raise ImportError("kipjax is not here: open this notebook in a clone, or set SOURCE to its repository")
    if not clones:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)"""


def install() -> str:
    """The first code cell, with ``Repository`` of the project's addresses; empty until there is a public one."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "")
    return INSTALL.replace("{source}", address and f"git+{address}")


def execute(notebook: dict) -> list[list[dict]]:
    """The outputs of every code cell of a notebook, in order; files that they write go to a folder that is deleted."""
    namespace: dict = {"__name__": "__main__"}
    outputs = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number, cell in enumerate(cells(notebook), start=1):
            code = compile("".join(cell["source"]), f"cell {number}", "exec")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
            outputs.append(_stream(printed.getvalue()) + _figures())
    return outputs


def cells(notebook: dict) -> list[dict]:
    """The code cells."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def load(name: str) -> dict:
    """The notebook of that name."""
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def save(name: str, notebook: dict) -> None:
    """Writes it, always in the same way."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{name}.ipynb").write_text(text, encoding="utf-8")


def _stream(text: str) -> list[dict]:
    return [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}] if text else []


def _figures() -> list[dict]:
    """The open figures as PNG, without the version of the program in them; they are closed."""
    from matplotlib import pyplot

    found = []
    for number in pyplot.get_fignums():
        file = io.BytesIO()
        pyplot.figure(number).savefig(file, format="png", dpi=60, bbox_inches="tight", metadata={"Software": None})
        image = base64.b64encode(file.getvalue()).decode()
        found.append({"data": {"image/png": image}, "metadata": {}, "output_type": "display_data"})
    pyplot.close("all")
    return found


def main(names: list[str]) -> None:
    unknown = set(names) - set(NAMES)
    if unknown:
        sys.exit(f"error: no notebook {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in names or NAMES:
        notebook = load(name)
        cells(notebook)[0]["source"] = install().splitlines(keepends=True)
        for count, (cell, found) in enumerate(zip(cells(notebook), execute(notebook)), start=1):
            cell["outputs"], cell["execution_count"] = found, count
        save(name, notebook)
        print(f"written   {FOLDER / name}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
