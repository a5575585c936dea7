"""The tables of linear_start.py, from its records."""

import numpy as np
import pandas as pd

BUILDS = ("linear", "skae", "longer", "old", "pythae")
PAIRS = [("skae", base) for base in ("linear", "old", "pythae")]
PAIRS += [("old", "linear"), ("pythae", "linear")]
LIMITS = {"Autoencoder": 0.02, "VAE": 0.1}  # a share of the squared error, nats


def print_report(records: list[dict]) -> None:
    """Figures of every data set, gains over all fits, and what longer fits would have gained."""
    frame = pd.DataFrame(records).drop_duplicates(["model", "data", "seed", "build"], keep="last")
    for model, fits in frame.groupby("model"):
        names = [build for build in BUILDS if build in set(fits["build"])]
        print_figures(model, fits, names)
        if not fits["table"].any():
            print_gains(model, fits, names)
        if "longer" in names:
            print_longer(model, fits)
        if "seconds" in fits:
            seconds = fits.groupby("build")["seconds"].sum()
            print(
                "\nSeconds of all fits:", ", ".join(f"{b} {s:.0f}" for b, s in seconds.items() if s)
            )


def print_rows(*rows: list[str]) -> None:
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    print("".join(f"| {' | '.join(row)} |\n" for row in rows[1:]), end="")


def shown(model: str, gap: float) -> str:
    return f"{gap:.1%}" if model == "Autoencoder" else f"{gap:.3f}"


def wide(fits: pd.DataFrame, part: int = 1) -> pd.DataFrame:
    """Losses of the rows held out, or of training rows (0): a row a fit, a column a build."""
    losses = fits.assign(loss=fits["losses"].str[part])
    table = losses.pivot(index=["data", "seed"], columns="build", values="loss")
    return table.reindex(fits["data"].unique(), level="data")


def behind(model: str, losses: pd.DataFrame, build: str, base: str) -> pd.Series:
    """By how much `build` is behind `base`: a share of the squared error, or nats."""
    if model == "Autoencoder":
        return losses[build] / losses[base] - 1
    return losses[build] - losses[base]


def print_figures(model: str, fits: pd.DataFrame, names: list[str]) -> None:
    is_table, sign = fits["table"].any(), 1 if model == "Autoencoder" else -1
    train, test = sign * wide(fits, 0), sign * wide(fits)
    print(f"\n{model}, {'squared error' if sign > 0 else 'nats'} of a row", end=", ")
    print("training / held out" if is_table else "held out, median over the seeds")
    linear = "PCA" if sign > 0 else "PPCA"
    rows = [["data", *(linear if name == "linear" else name for name in names)]]
    if is_table:
        cells = train.map("{:.3f}".format) + " / " + test.map("{:.3f}".format)
        rows += [[f"{data}, seed {seed}", *row] for (data, seed), row in cells[names].iterrows()]
    else:
        medians = test.groupby("data", sort=False).median()[names]
        rows += [[data, *map("{:.4g}".format, row)] for data, row in medians.iterrows()]
    print_rows(*rows)


def print_gains(model: str, fits: pd.DataFrame, names: list[str]) -> None:
    rows = [["", "beside", "median gain", "largest loss", "behind in"]]
    losses = wide(fits)
    for build, base in PAIRS:
        if build in names and base in names:
            gap = behind(model, losses, build, base).dropna()
            figures = [shown(model, -gap.median()), shown(model, gap.max())]
            rows.append([build, base, *figures, f"{(gap > 0).sum()} of {len(gap)} fits"])
    print_rows(*rows)


def print_longer(model: str, fits: pd.DataFrame) -> None:
    limit = LIMITS[model]
    short = fits[fits["build"] == "skae"].set_index(["data", "seed"])
    longer = fits[fits["build"] == "longer"].set_index(["data", "seed"])
    table = pd.DataFrame(
        {
            "gap": behind(model, wide(fits), "skae", "longer"),
            "warned": short["warnings"].astype(str).str.contains("ConvergenceWarning"),
            "epochs": short["epochs"],
            "more": longer["epochs"],
        }
    )
    head = ["behind the longer fit, median", "worst", f"by more than {limit}", "and silent"]
    rows = [["data", *head, "warned", "epochs", "of the longer fit"]]
    for data in fits["data"].unique():
        fit = table.loc[data]
        late = fit["gap"] > limit
        counts = [late.sum(), (late & ~fit["warned"]).sum(), fit["warned"].sum()]
        figures = [shown(model, fit["gap"].median()), shown(model, fit["gap"].max())]
        epochs = [f"{np.median(fit[name]):g}" for name in ("epochs", "more")]
        rows.append([data, *figures, *(f"{count} of {len(fit)}" for count in counts), *epochs])
    print_rows(*rows)
