"""What displays of decoded codes share: rows along paths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._plotting.canvas import (
    SEQUENCE,
    as_images,
    checked_limits,
    colour_bar,
    draw_mosaic,
    grid_of_axes,
    mosaic_size,
    number,
    some_labels,
)
from skae._plotting.fitted import (
    Fitted,
    checked_image_shape,
)
from skae._plotting.profiles import Profiles, label_below
from skae._plotting.rows import (
    FeatureUnits,
)

Array = NDArray[Any]


class PathsDisplay:
    """Rows along paths: one line of images, or one panel of curves, for each path."""

    image_shape: tuple[int, ...] | None
    feature_names: list[Any] | None
    feature_means: ArrayLike | None
    feature_stds: ArrayLike | None
    limits: tuple[float, float] | None

    def _draw(
        self, paths: Array, positions: Array, labels: list[str], position_label: str, ax: Any
    ) -> None:
        """Draw paths, of shape (n_paths, n_steps, n_features), at positions (n_paths, n_steps)."""
        if self.image_shape is not None:
            self._draw_images(paths, positions, labels, position_label, ax)
        else:
            self._draw_curves(paths, positions, labels, position_label, ax)

    def _draw_images(
        self, paths: Array, positions: Array, labels: list[str], position_label: str, ax: Any
    ) -> None:
        n_paths, n_steps, n_features = paths.shape
        shape = checked_image_shape(self.image_shape, n_features)
        alike = bool((positions == positions[0]).all())
        wide, tall = mosaic_size(shape, n_paths, n_steps, labels)
        size = (wide, tall + (0.3 if alike else 0.25 * n_paths))
        figure, grid = grid_of_axes(ax, n_paths, 1, size)
        limits = checked_limits(self.limits, paths)
        for index, cell in enumerate(grid[:, 0]):
            shown = not alike or index == n_paths - 1
            values = [number(value) for value in positions[index]] if shown else []
            inches = cell.get_window_extent().width / figure.dpi
            draw_mosaic(
                cell,
                as_images(paths[index], shape),
                n_steps,
                limits=limits,
                row_labels=labels[index : index + 1],
                column_labels=values if ax is None else some_labels(values, inches),
            )
            cell.tick_params(axis="x", labelsize="small", pad=1)
        label_below(grid, position_label)
        self.ax_, self.figure_ = grid[:, 0], figure

    def _draw_curves(
        self, paths: Array, positions: Array, labels: list[str], position_label: str, ax: Any
    ) -> None:
        import matplotlib as mpl

        n_paths, n_steps, n_features = paths.shape
        units = FeatureUnits.given(self.feature_means, self.feature_stds, n_features)
        profiles = Profiles(n_features, self.feature_names, units)
        if profiles.beside_names:
            n_columns, width = min(n_paths, 5), 1.8
        else:
            n_columns, width = 1 if n_paths == 1 else 2, 4.2
        n_lines = -(-n_paths // n_columns)
        size = (max(width * n_columns + 2.2, 4.8), profiles.height() * n_lines + 0.8)
        figure, grid = grid_of_axes(ax, n_lines, n_columns, size, sharex=True, sharey=True)
        cells = grid.ravel()
        alike = bool((positions == positions[0]).all())
        colours = mpl.colormaps[SEQUENCE](np.linspace(0.0, 0.95, n_steps))
        for cell, path, at, label in zip(cells, paths, positions, labels, strict=False):
            order = np.argsort(at, kind="stable")
            for colour, step in zip(colours, order, strict=True):
                style = "o" if profiles.beside_names else "-"
                row = profiles.values(path[step])
                profiles.draw(cell, row, style, color=colour, markersize=4, linewidth=1.3)
            ends = "" if alike else f": {number(at[order[0]])} to {number(at[order[-1]])}"
            cell.set_title(label + ends, fontsize="small", loc="left", pad=2)
        for cell in cells[n_paths:]:
            cell.set_axis_off()
        profiles.label(grid)
        low, high = (positions.min(), positions.max()) if alike else (0.0, 1.0)
        palette = mpl.colors.ListedColormap(mpl.colormaps[SEQUENCE](np.linspace(0.0, 0.95)))
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high), palette)
        host = cells[0] if ax is None else ax
        bar = colour_bar(host, scale, list(cells), position_label)
        if not alike:
            bar.set_ticks([0.0, 1.0], labels=["lowest", "highest"])
        self.ax_, self.figure_ = cells[:n_paths], figure


def with_real_codes(estimator: Any, display: str) -> Fitted:
    fitted = Fitted(estimator)
    fitted.require("transform", "inverse_transform", display=display)
    fitted.require_restoring(display)
    return fitted


def checked_codes(fitted: Fitted, codes: Array, display: str) -> Array:
    if codes.dtype.kind in "iub":
        raise TypeError(
            f"{display} needs codes that are real numbers, but those of {fitted.name} are indices, "
            "which have no order. ReconstructionDisplay and SampleDisplay draw such models."
        )
    return codes


def one_target(y: Any, n_rows: int) -> Any:
    """One target, for all rows that are decoded."""
    if y is None or np.ndim(y) == 0:
        return y
    target = np.asarray(y)
    return np.repeat(target.reshape(1, -1), n_rows, axis=0) if target.size > 1 else target.item()
