"""The install lists agree, the import is light, and what is promised at top level is there."""

import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements):
    return {re.split(r"[<>=\[; ]", line)[0]: line for line in requirements}


def test_the_lean_list_is_the_dependencies_without_what_pulls_tensorflow_in():
    full, lean = names(PROJECT["project"]["dependencies"]), names(PROJECT["dependency-groups"]["lean"])
    assert set(full) - set(lean) == {"neural-tangents"}
    assert set(lean) - set(full) == {"frozendict"}
    assert all(full[name] == lean[name] for name in set(full) & set(lean))


def test_the_dev_extra_is_the_dev_group():
    assert PROJECT["project"]["optional-dependencies"]["dev"] == PROJECT["dependency-groups"]["dev"]


def test_import_is_light_and_leaves_tensorflow_alone():
    code = (
        "import sys, kipjax, kipjax.methods, kipjax.evaluation, kipjax.data, kipjax.io; kipjax.methods.METHODS;"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'neural_tangents', 'matplotlib', 'sklearn', 'orbax'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_are_there():
    import kipjax

    for name in kipjax.__all__:
        assert getattr(kipjax, name) is not None
    assert set(kipjax.methods.METHODS) >= {"kip", "label_solve"}
    assert set(kipjax.evaluation.PROTOCOLS) >= {"krr", "kernel_transfer"}


def test_licence_is_apache_2():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_the_citation_is_of_this_version():
    import kipjax

    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited and cited[1] == kipjax.__version__
