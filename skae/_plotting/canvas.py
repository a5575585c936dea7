"""What all displays share: axes, colours, mosaics of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure, SubFigure

Array = NDArray[Any]
_Arguments = ParamSpec("_Arguments")
_Drawn = TypeVar("_Drawn")

# Drawn in the colour of text, which a style with a dark background makes light.
BLACK = "#000000"
# Colours of Okabe and Ito, which people with any common colour blindness tell apart, three muted
# ones of Tol for more classes, and a marker and a line style for each, so that no display depends
# on colour alone.
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    BLACK,
    "#882255",
    "#999933",
    "#DDCC77",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":")
# Sequential colours, which are told apart by lightness alone.
SEQUENCE = "cividis"
# Grey level between images of a mosaic.
GAP = 0.88
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


def with_matplotlib(plot: Callable[_Arguments, _Drawn]) -> Callable[_Arguments, _Drawn]:
    """A method `plot` that needs matplotlib, and that leaves no figure open if it raises."""

    @wraps(plot)
    def checked(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Drawn:
        check_matplotlib(type(args[0]).__name__)
        import matplotlib.pyplot as plt

        before = plt.get_fignums()
        try:
            return plot(*args, **options)
        except BaseException:
            for made in set(plt.get_fignums()).difference(before):
                plt.close(made)
            raise

    return checked


def single_axes(ax: Any, figsize: tuple[float, float]) -> Axes:
    """The axes that were given, or those of a new figure."""
    if ax is not None:
        _remove_drawn_before(host := _checked_axes(ax))
        return host
    import matplotlib.pyplot as plt

    _, made = plt.subplots(figsize=figsize, layout="constrained")
    return made


def grid_of_axes(
    ax: Any, n_rows: int, n_columns: int, figsize: tuple[float, float], **options: Any
) -> tuple[Figure | SubFigure, NDArray[Any]]:
    """A figure and a grid of axes: of a new figure, or in the place of the axes given.

    Axes that are given are emptied and keep their title. What an earlier call drew in their place
    is removed.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        figure, axes = plt.subplots(
            n_rows, n_columns, figsize=figsize, layout="constrained", squeeze=False, **options
        )
        return figure, axes
    host = _checked_axes(ax)
    _remove_drawn_before(host)
    host.set_axis_off()
    place = host.get_subplotspec()
    if place is not None:
        grid: Any = place.subgridspec(n_rows, n_columns)
    else:  # axes that were placed by hand
        from matplotlib.gridspec import GridSpec

        parent: Any = host.figure
        box = host.get_position()
        sides = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
        grid = GridSpec(n_rows, n_columns, figure=parent, **sides)
    axes = grid.subplots(squeeze=False, **options)
    _DRAWN.setdefault(host, []).extend(axes.ravel())
    return host.figure, axes


def colour_bar(host: Axes, mappable: Any, axes: Any, label: str, **options: Any) -> Colorbar:
    """A colour bar beside axes, which goes when its host is drawn again."""
    bar = host.figure.colorbar(mappable, ax=axes, **options)
    bar.set_label(label)
    _DRAWN.setdefault(host, []).append(bar)
    return bar


def legend_above(first: Axes, handles: Any, labels: Any) -> None:
    """A legend above the first axes of a grid, which may be wider than these axes.

    The layout leaves room for its height alone: axes as wide as the legend would be too wide.
    """
    style: dict[str, Any] = {"fontsize": "small", "frameon": False, "ncols": len(labels)}
    legend = first.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=1.5, **style
    )
    legend.set_in_layout(False)
    first.annotate(
        "I", (0, 1), (0, 24), xycoords="axes fraction", textcoords="offset points", alpha=0
    )


# What was drawn in the place of axes, or beside them, and is to go when they are drawn again.
_DRAWN: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()


def _remove_drawn_before(host: Axes) -> None:
    for artist in reversed(_DRAWN.pop(host, [])):
        figure = artist.ax.figure if hasattr(artist, "ax") else artist.figure
        if figure is not None:  # the user has not removed it
            artist.remove()


def _checked_axes(ax: Any) -> Axes:
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
    ax: Axes,
    images: Array,
    n_columns: int,
    *,
    limits: tuple[float, float],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> None:
    """Draw images in lines of `n_columns` as one picture, with a light gap between them.

    Grey images are drawn dark on white between the limits, missing values in a colour of their
    own, which a legend names; colour images are scaled from the limits to [0, 1].
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
        missing = np.asarray(missing.any(axis=-1))
    else:
        picture = mpl.colormaps["gray_r"](np.where(missing, 0.0, shares))[..., :3]
    picture = np.where(missing[..., None], mpl.colors.to_rgb(MISSING), picture)
    canvas = np.full((n_rows * (height + gap) - gap, n_columns * (width + gap) - gap, 3), GAP)
    for place, image in enumerate(picture):
        top = (place // n_columns) * (height + gap)
        left = (place % n_columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    for place in range(len(picture), n_rows * n_columns):  # cells without an image
        top, left = (place // n_columns) * (height + gap), (place % n_columns) * (width + gap)
        canvas[max(top - gap, 0) : top + height, left : left + width + gap] = 1.0
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
    if missing.any():
        from matplotlib.patches import Patch

        ax.legend(
            handles=[Patch(color=MISSING, label="missing value")],
            loc="upper right",
            bbox_to_anchor=(1.0, -0.01),
            frameon=False,
            borderaxespad=0.2,
        )


def some_labels(labels: Sequence[str], inches: float) -> list[str]:
    """Labels side by side, and empty ones in the place of those that would touch their neighbours.

    The label in the middle is kept, and those at equal distances from it.
    """
    needed = 0.07 * max(map(len, labels), default=0) + 0.06
    step = max(1, int(np.ceil(needed * len(labels) / inches)))
    middle = len(labels) // 2
    return [label if (i - middle) % step == 0 else "" for i, label in enumerate(labels)]


def mosaic_size(
    image_shape: tuple[int, ...],
    n_rows: int,
    n_columns: int,
    row_labels: Sequence[str] = (),
    widest: float = 9.0,
) -> tuple[float, float]:
    """Size of a figure for a mosaic, in inches: every image about 0.8 inches high, if it fits."""
    height, width = image_shape[-2:]
    tall = min(0.8 * n_rows, 9.0)
    wide = tall / n_rows * n_columns * width / height
    if wide > widest:
        tall, wide = tall * widest / wide, widest
    labels = 0.3 + 0.09 * max(map(len, row_labels), default=0)
    return max(wide + labels, 2.4 + labels), tall + 0.5


def n_mosaic_columns(n_images: int, image_shape: tuple[int, ...], aspect: float) -> int:
    """Columns of a mosaic about `aspect` times as wide as high, with few cells left empty."""
    height, width = image_shape[-2:]
    wanted = float(np.sqrt(n_images * aspect * height / width))
    allowed = range(max(1, round(0.7 * wanted)), min(n_images, max(1, round(1.5 * wanted))) + 1)
    return min(allowed, key=lambda n: (-n_images % n, abs(n - wanted)), default=1)


def limits_of(*groups: Any) -> tuple[float, float]:
    """Smallest and largest finite value of the groups of rows."""
    values = np.concatenate([np.asarray(group, dtype=np.float64).ravel() for group in groups])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def usual_limits_of(rows: Any) -> tuple[float, float]:
    """Limits that hold nearly all values of new rows, among which a few can lie far out."""
    values = np.asarray(rows, dtype=np.float64)
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.02, 0.98]) if len(values) else (0.0, 0.0)
    return (float(low), float(high)) if high > low else limits_of(values)


def aspect_of(ax: Any) -> float:
    """Width of axes divided by their height, as they are placed now."""
    box = _checked_axes(ax).get_window_extent()
    return float(np.clip(box.width / max(box.height, 1.0), 0.2, 20.0))


def checked_limits(limits: Any, *groups: Any) -> tuple[float, float]:
    """Limits that a display was made with, or those of groups of rows where it has none."""
    if limits is None:
        return limits_of(*groups)
    given = np.asarray(limits, dtype=np.float64)
    if given.shape != (2,) or not np.isfinite(given).all() or given[0] > given[1]:
        raise ValueError(f"limits={limits!r} must be two numbers, the smaller first, or None.")
    return float(given[0]), float(given[1])


def checked_names(argument: str, names: Any, n_names: int) -> list[Any] | None:
    """Names that a display was made with, one for each of `n_names`, or None."""
    if names is None:
        return None
    if isinstance(names, str) or not hasattr(names, "__len__") or len(names) != n_names:
        raise ValueError(f"{argument}={names!r} must be a list of {n_names} names, or None.")
    return list(names)


def checked_code_names(names: Any, n_codes: int) -> list[Any]:
    """Names of codes that a display was made with; numbered ones for None."""
    return checked_names("code_names", names, n_codes) or [f"code {i}" for i in range(n_codes)]


def ink() -> str:
    """Colour of rows of the data and of lines that mark values: the one of text in the style."""
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])


def short(name: Any, most: int = 24) -> str:
    """A name, without its middle if it is long."""
    text = str(name)
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"


def number(value: float) -> str:
    """A number as ticks show it: three digits, a true minus sign."""
    return f"{value + 0.0:.3g}".replace("-", "\N{MINUS SIGN}")
