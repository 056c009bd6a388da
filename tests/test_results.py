"""What README.md and RESULTS.md say was measured is in results/, and REPRODUCTION.md is what its command writes."""

import json
import pathlib
import re

import numpy as np
import pytest

from experiments import gather, reproduction, tables
from kipjax.evaluation import metrics

ROOT = pathlib.Path(__file__).parents[1]
FOUND = gather.below([str(ROOT / "results")])
SPREAD = re.compile(r"(\d+\.\d+) ± (\d+\.\d+)")


def spreads(tree):
    """``(mean, std)`` of everything that was repeated in a JSON tree, in percent and as it is."""
    if isinstance(tree, dict):
        if isinstance(tree.get("mean"), float) and isinstance(tree.get("std"), float):
            yield tree["mean"], tree["std"]
        for part in tree.values():
            yield from spreads(part)
    elif isinstance(tree, list):
        if len(tree) > 1 and all(isinstance(value, float) for value in tree):
            found = metrics.summarize(tree)
            yield found.mean, found.std
        for part in tree:
            yield from spreads(part)


def measured(paths, methods=None):
    """What the files at and below ``paths`` hold, what seeds give together, and the figures of the papers."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.json"))]
    pairs = [pair for path in files for pair in spreads(gather.read(str(path)))]
    runs = [run for run in FOUND.runs if methods is None or run.config["method"]["name"] in methods]
    for group in gather.groups(runs):
        for results in zip(*(run.summary["results"] for run in group)):
            values = [a for result in results for a in result["accuracies"]]
            means = [result["accuracy"]["mean"] for result in results]
            pairs += [(s.mean, s.std) for s in map(metrics.summarize, (values, means)) if s.n > 1]
    published = [(row.mean, row.std) for row in reproduction.rows() if row.std is not None]
    return [(100 * mean, 100 * std) for mean, std in pairs] + pairs + published


MEASURED = measured([ROOT / "results"])
TABLES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "results").rglob("table.txt"))


def is_measured(mean, std, known=None, tables=TABLES):
    """Whether a stored table says so, or something stored rounds to the two texts."""
    if re.search(rf"(?<![\d.]){re.escape(mean)} ± {re.escape(std)}(?!\d)", tables):
        return True
    known = MEASURED if known is None else known
    digits = [len(text.partition(".")[2]) for text in (mean, std)]
    return any(f"{m:.{digits[0]}f}" == mean and f"{s:.{digits[1]}f}" == std for m, s in known)


@pytest.mark.parametrize("page", ["README.md", "RESULTS.md"])
def test_every_mean_with_a_spread_is_in_the_stored_results(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    said = [found.groups() for found in SPREAD.finditer(text)]
    unknown = {f"{mean} ± {std}" for mean, std in said if not is_measured(mean, std)}
    assert not unknown, "in no file of results/"


SECTIONS = {
    "Kernel ridge regression: KIP, Label Solve": "kip label_solve",
    "Exact distillation": "krr_exact*",
    "Coresets": "coreset* network_coreset kip dm*",
    "Implicit gradients: RCIG, CIG, VIG": "rcig cig vig frepo",
    "Matching methods: DC, DSA, DM, MTT": "dc dsa dm* mtt",
    "Label distillation": "ld",
    "Unrolled methods: DD, SLDD, TDD, GTN": "dd sldd tdd gtn poison",
    "Continual learning": "continual",
    "Membership inference": "mia",
    "Corruption": "corruption",
    "Architecture search": "nas",
    "Robustness: hyperparameters, size, classes": "robustness",
}
"""Which files under results/ a section of RESULTS.md is about; the others have no spreads."""


def test_every_spread_is_of_the_results_that_its_section_is_about():
    """A figure of another method, right elsewhere, does not pass."""
    sections = (ROOT / "RESULTS.md").read_text(encoding="utf-8").split("\n## ")[1:]
    for section in sections:
        title = section.partition("\n")[0]
        said = {found.groups() for found in SPREAD.finditer(section)}
        if title not in SECTIONS:
            assert not said, title
            continue
        paths = [path for pattern in SECTIONS[title].split() for path in (ROOT / "results").glob(pattern)]
        names = [pattern.rstrip("*") for pattern in SECTIONS[title].split()]
        known = measured(paths, names)
        tables = "".join(p.read_text(encoding="utf-8") for path in paths for p in path.rglob("table.txt"))
        unknown = [" ± ".join(pair) for pair in said if not is_measured(*pair, known, tables)]
        assert not unknown, (title, unknown)


def test_ratios_of_times_are_in_the_stored_benchmarks():
    rows = [
        row for path in (ROOT / "results/benchmark").glob("*.json") for row in gather.read(str(path)).get("rows", [])
    ]
    keys = ("ratio", "smallest_ratio", "largest_ratio")
    known = {tuple(f"{row[key]:.{digits}f}" for key in keys) for row in rows for digits in (2, 3)}
    said = re.findall(r"(\d+\.\d+) \((\d+\.\d+)\.\.(\d+\.\d+)\)", (ROOT / "RESULTS.md").read_text(encoding="utf-8"))
    assert len(said) > 10 and not [ratio for ratio in said if ratio not in known]


def means(tree):
    """Every mean accuracy in a JSON tree, in percent."""
    if isinstance(tree, dict):
        values = [tree.get("mean"), *(v for k, v in tree.items() if k in ("teacher", "exact", "accuracy"))]
        yield from (100 * value for value in values if isinstance(value, float))
        for part in tree.values():
            yield from means(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from means(part)


def test_the_figures_of_the_methods_are_in_their_stored_results():
    """The last column of README's table of methods, without the figures of the literature in brackets."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("| method | paper")[2].partition("\n\n")[0].splitlines()[2:]
    checked = 0
    for line in table:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        names = re.findall(r"(\w+)\.py", cells[2])
        paths = [path for name in names for path in (ROOT / "results").glob(f"{name}*/**/*.json")]
        paths += [path for name in names for path in (ROOT / "results").glob(f"*{name}*.json")]
        found = [mean for path in paths for mean in means(gather.read(str(path)))]
        if names == ["mnemonics"]:
            text = (ROOT / "results/continual/fashion_mnist_mnemonics/table.txt").read_text(encoding="utf-8")
            found = [float(mean) for mean, _ in SPREAD.findall(text)]
        runs = [run for run in FOUND.runs if run.config["method"]["name"] in names]
        for group in gather.groups(runs):
            found.append(100 * np.mean([a for run in group for a in run.summary["results"][0]["accuracies"]]))
        said = re.findall(r"\d+\.\d", re.sub(r"\(\d[\d.; ]*\)", "", cells[-1]))
        unknown = [value for value in said if not any(abs(mean - float(value)) < 0.0501 for mean in found)]
        assert not unknown, (cells[0], unknown)
        checked += len(said)
    assert checked > 20


def test_a_config_that_was_run_does_not_say_that_it_was_not():
    """The files of ``configs/METHOD`` are named by data set; one for all data sets may say it of the paper's scale."""
    seen = set()
    for run in FOUND.runs:
        data = run.config["data"]["name"].removeprefix("text:").split(":")[0]
        folder = ROOT / "configs" / run.config["method"]["name"]
        path = next(path for path in (folder / f"{data}.py", folder / "images.py") if path.is_file())
        head = " ".join(path.read_text(encoding="utf-8").split('"""')[1].split()).lower()
        assert "not run" not in head.replace("at paper scale: not run", ""), path
        seen.add(path)
    assert len(seen) > 15


def test_the_test_of_numbers_can_fail():
    assert is_measured("82.44", "0.08") and not is_measured("82.45", "0.08") and not is_measured("82.44", "0.09")
    assert len(SPREAD.findall((ROOT / "RESULTS.md").read_text(encoding="utf-8"))) > 50


def test_the_reproduction_report_is_what_its_command_writes():
    written = (ROOT / "REPRODUCTION.md").read_text(encoding="utf-8")
    made = reproduction.report(reproduction.rows(), FOUND.runs, reproduction.others()) + "\n"
    assert made == written, "python -m experiments.reproduction --runs=results --out=REPRODUCTION.md"


def test_the_tables_are_of_every_stored_result():
    """Coresets scored by a kernel, sets scored by another protocol, exact sets, benchmarks."""
    whole = json.loads(tables.everything(FOUND, "json"))
    assert {"results/coreset_krr_fashion_mnist_50", "results/dm_50_by_dc"} <= set(whole["scored"])
    assert "continual/digits_mnemonics" in whole["studies"] and "lucir, herding" in tables.everything(FOUND)
    assert {"results/krr_exact_fashion_mnist", "benchmark/dsa", "benchmark/rcig_128"} <= set(whole["others"])
