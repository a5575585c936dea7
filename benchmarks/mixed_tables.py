"""Tables of numbers, categories, counts and booleans with holes: skae beside linear models.

    pip install "skae[benchmarks]"
    python benchmarks/mixed_tables.py
    python benchmarks/mixed_tables.py --tables fair --models "VAE, auto" "FAMD (prince)" --splits 1

Two surveys of statsmodels, the diamonds of plotnine, and a simulated table of 100,000 rows and 30
columns. A quarter of the rows is held out; a fifth of all cells is removed completely at random,
the same for all models. A model is fitted to the other rows with their holes, and fills these and
those of the rows held out. Printed are, of removed cells only,

- accuracy: of the levels of categories and booleans, mean over these columns;
- error: root mean squared error of numbers and counts by the column's standard deviation, mean
  over these columns; integers are rounded, whoever fills them in;

and, of a fit to the same rows without holes, the area under the ROC curve of a column that is
left out of the table, told from the 8 codes of the rows held out by logistic regression and by
gradient boosting in five folds. Nothing is chosen on removed cells. All models have 8 components
and their defaults, but that linear ones fill holes by 1 to 8, whichever fills a tenth of the cells
that are seen best. Seconds are of the fit with holes, choices included. What can be reached of the
simulated table is told by the model that it was drawn from, on 5000 of the rows held out: by its
conditional means, its likeliest levels and, without codes, its chance of the column.

`--read` takes the figures of earlier runs, kept by `--out`, and measures only what is missing.

Measured figures: docs/benchmarks.md.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _common import describe_machine
from _table_peers import MODELS, filled, levels_of
from _tables import TABLES, Table, make_holes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

warnings.simplefilter("ignore", ConvergenceWarning)  # IterativeImputer's ten passes

FIGURES = {
    "accuracy": "accuracy",
    "accuracy held out": "held out",
    "error": "error",
    "error held out": "held out",
    "logistic": "AUC, logistic",
    "boosting": "AUC, boosting",
    "seconds": "s",
}


def judged(guess: pd.DataFrame, frame: pd.DataFrame, holes: np.ndarray) -> tuple[float, float]:
    """Accuracy of removed levels, and error of removed numbers; means over the columns."""
    levels, accuracies, errors = levels_of(frame), [], []
    for j, name in enumerate(frame):
        given, truth = guess[name][holes[:, j]], frame[name][holes[:, j]]
        if name in levels:
            accuracies.append((given.astype(object) == truth.astype(object)).mean())
        else:
            misfit = given.to_numpy(float) - truth.to_numpy(float)
            errors.append(np.sqrt(np.mean(misfit**2)) / frame[name].to_numpy(float).std())
    return float(np.mean(accuracies)), float(np.mean(errors))


def area_under_curve(codes: np.ndarray, target: np.ndarray, classifier: object) -> float:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), classifier)
    return float(cross_val_score(model, codes, target, cv=folds, scoring="roc_auc").mean())


def rows_of(table: Table, split: int) -> list[np.ndarray]:
    """The rows to fit to, and a quarter that is held out."""
    rows = np.arange(len(table.frame))
    return train_test_split(rows, test_size=0.25, random_state=split, stratify=table.target)


def measure(model_name: str, table: Table, split: int) -> dict[str, float]:
    """The figures of one model on one split of the rows."""
    frame, target, _ = table
    train, test = rows_of(table, split)
    with_holes, holes = make_holes(frame, 0.2, seed=split)
    model = MODELS[model_name]()
    start = time.perf_counter()
    model.fit(with_holes.iloc[train])
    figures = {"seconds": time.perf_counter() - start}
    for suffix, rows in (("", train), (" held out", test)):
        guess = model.impute(with_holes.iloc[rows])
        accuracy, error = judged(guess, frame.iloc[rows], holes[rows])
        figures |= {f"accuracy{suffix}": accuracy, f"error{suffix}": error}
    if hasattr(model, "n_components"):
        figures["n_components"] = model.n_components
    if hasattr(model, "codes"):
        codes = MODELS[model_name]().fit(frame.iloc[train]).codes(frame.iloc[test])
        for name, classifier in (
            ("logistic", LogisticRegression(max_iter=1000)),
            ("boosting", HistGradientBoostingClassifier(random_state=0)),
        ):
            figures[name] = area_under_curve(codes, target[test], classifier)
    return figures


def measure_truth(table: Table, split: int, n_rows: int = 5000) -> dict[str, float]:
    """What the model that the rows were drawn from reaches, on some of the rows held out."""
    frame, target, truth = table
    _, test = rows_of(table, split)
    with_holes, holes = make_holes(frame, 0.2, seed=split)
    rows = test[:n_rows]
    guesses, _ = truth.expected(with_holes.iloc[rows])
    accuracy, error = judged(filled(with_holes.iloc[rows], guesses), frame.iloc[rows], holes[rows])
    _, chance = truth.expected(frame.iloc[rows])
    auc = float(roc_auc_score(target[rows], chance))
    return {
        "accuracy held out": accuracy,
        "error held out": error,
        "logistic": auc,
        "boosting": auc,
    }


def print_table(name: str, runs: dict[str, list[dict[str, float]]]) -> None:
    """Means over the splits of each model's figures, as a table of docs/benchmarks.md."""
    print(f"\n| {name} | " + " | ".join(FIGURES.values()) + " |")
    print("|---" * (len(FIGURES) + 1) + "|")
    for model, figures in runs.items():
        cells = []
        for key in FIGURES:
            values = [run[key] for run in figures if key in run]
            digits = 1 if key == "seconds" else 3
            cells.append(f"{np.mean(values):.{digits}f}" if values else "")
        print(f"| {model} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--splits", type=int, help="default: 5, or 1 of more than 20,000 rows")
    parser.add_argument("--out", type=Path, help="figures of every split are added, JSON lines")
    parser.add_argument("--read", type=Path, nargs="+", default=[], help="figures of earlier runs")
    arguments = parser.parse_args()
    print(describe_machine("torch", "pandas", "prince", "statsmodels", "plotnine"))
    known = {}
    for line in (line for path in arguments.read for line in path.read_text().splitlines()):
        record = json.loads(line)
        known[tuple(record.pop(key) for key in ("table", "model", "split"))] = record
    for name in arguments.tables:
        table = TABLES[name]()
        n_splits = arguments.splits or (1 if len(table.frame) > 20_000 else 5)
        runs: dict[str, list[dict[str, float]]] = {model: [] for model in arguments.models}
        for split in range(n_splits):
            for model in arguments.models:
                figures = known.get((name, model, split)) or measure(model, table, split)
                runs[model].append(figures)
                if arguments.out is not None and (name, model, split) not in known:
                    record = {"table": name, "model": model, "split": split, **figures}
                    with arguments.out.open("a") as file:
                        file.write(json.dumps(record) + "\n")
        if table.truth is not None:
            runs["the planted model"] = [measure_truth(table, 0)]
        print_table(f"{name}, {len(table.frame)} x {table.frame.shape[1]}", runs)


if __name__ == "__main__":
    main()
