"""What all displays share: axes, colours, mosaics of images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Array = NDArray[Any]

# Colours of Okabe and Ito, which people with any common colour blindness tell apart, and a marker
# and a line style for each, so that no display depends on colour alone.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":")
# Colour of pixels whose value is missing.
MISSING = "#E69F00"


def check_matplotlib(display: str) -> None:
    """Raise an ImportError that says what to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{display} needs matplotlib, which is not installed. Run pip install "skae[plots]".'
        ) from error


def single_axes(ax: Any, figsize: tuple[float, float]) -> "Axes":
    """The axes that were given, or those of a new figure."""
    if ax is not None:
        return _checked_axes(ax)
    import matplotlib.pyplot as plt

    _, made = plt.subplots(figsize=figsize, layout="constrained")
    return made


def grid_of_axes(
    ax: Any, n_rows: int, n_columns: int, figsize: tuple[float, float], **options: Any
) -> tuple["Figure | SubFigure", NDArray[Any]]:
    """A figure and a grid of axes: of a new figure, or in the place of the axes given.

    Axes that are given are emptied and keep their title.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        figure, axes = plt.subplots(
            n_rows, n_columns, figsize=figsize, layout="constrained", squeeze=False, **options
        )
        return figure, axes
    host = _checked_axes(ax)
    host.set_axis_off()
    figure = host.figure
    place = host.get_subplotspec()
    if place is None:
        raise ValueError(
            "ax was placed by hand, and has no cell of a grid that several axes could share. Give "
            "axes of plt.subplots, or no ax."
        )
    axes = place.subgridspec(n_rows, n_columns).subplots(squeeze=False, **options)
    return figure, axes


def _checked_axes(ax: Any) -> "Axes":
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be matplotlib Axes, got {type(ax).__name__}.")
    return ax


def as_images(rows: Any, image_shape: tuple[int, ...]) -> Array:
    """Rows as images: (n, height, width), or (n, height, width, 3) for three channels."""
    values = np.asarray(rows, dtype=np.float64)
    images = values.reshape(len(values), *image_shape)
    return np.moveaxis(images, 1, -1) if len(image_shape) == 3 else images


def draw_mosaic(
    ax: "Axes",
    images: Array,
    n_columns: int,
    *,
    limits: tuple[float, float],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> None:
    """Draw images in lines of `n_columns` as one picture, a white gap between them.

    Grey images are drawn dark on white between the limits, missing values in a colour of their
    own; colour images are scaled from the limits to [0, 1].
    """
    import matplotlib as mpl

    n_rows = -(-len(images) // n_columns)
    height, width = images.shape[1:3]
    gap = max(1, round(0.06 * max(height, width)))
    low, high = limits
    span = high - low if high > low else 1.0
    shares = np.clip((images - low) / span, 0.0, 1.0)
    missing: Array = np.asarray(np.isnan(images))
    picture: Array = shares
    if images.ndim == 4:
        missing = missing.any(axis=-1)
    else:
        picture = mpl.colormaps["gray_r"](np.where(missing, 0.0, shares))[..., :3]
    picture = np.where(missing[..., None], mpl.colors.to_rgb(MISSING), picture)
    canvas = np.ones(
        (n_rows * (height + gap) - gap, n_columns * (width + gap) - gap, 3), dtype=np.float64
    )
    for place, image in enumerate(picture):
        top = (place // n_columns) * (height + gap)
        left = (place % n_columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    ax.imshow(canvas, interpolation="nearest")
    ax.set_xticks(
        [column * (width + gap) + (width - 1) / 2 for column in range(len(column_labels))],
        list(column_labels),
    )
    ax.set_yticks(
        [row * (height + gap) + (height - 1) / 2 for row in range(len(row_labels))],
        list(row_labels),
    )
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)


def mosaic_size(image_shape: tuple[int, ...], n_rows: int, n_columns: int) -> tuple[float, float]:
    """Size of a figure for a mosaic, in inches: every image about 0.8 inches high, if it fits."""
    height, width = image_shape[-2:]
    tall = min(0.8 * n_rows, 9.0)
    wide = tall / n_rows * n_columns * width / height
    if wide > 11.0:
        tall, wide = tall * 11.0 / wide, 11.0
    return wide + 1.4, tall + 0.7


def limits_of(*groups: Any) -> tuple[float, float]:
    """Smallest and largest finite value of the groups of rows."""
    values = np.concatenate([np.asarray(group, dtype=np.float64).ravel() for group in groups])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
