"""The parameters that describe an instrument: their checks, and what they mean for the pixels."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skae._mixture.instrument import Instrument, RelativeExposure, checked_values
from skae._mixture.responsibilities import LOCAL_DIMS

Array = NDArray[Any]

# Number of places in a pixel, along each axis, at which a callable exposure is evaluated.
_PLACES_OF_CALLABLE = 3

_NUMBERS = 2**20


def checked_instrument(
    n_features: int,
    image_shape: Sequence[int] | None,
    *,
    has_noise: bool,
    covariance_type: str,
    algorithm: str,
    edges: str,
    pixels: bool,
    exposure: Any,
    background: Any,
    psf: Any,
) -> Instrument:
    """The instrument of the parameters of these names of CountMixtureAE."""
    is_cell = covariance_type in ("cell", "pixel")
    for name, value in (("background", background), ("psf", psf)):
        if value is not None and is_cell:
            raise ValueError(
                f"{name} cannot be combined with covariance_type={covariance_type!r}; it is "
                "only fitted together with Gaussians. Use covariance_type='full', for example."
            )
    if has_noise:
        other = f"covariance_type={covariance_type!r}" if is_cell else "exposure"
        if is_cell or exposure is not None:
            raise ValueError(
                f"noise_covariance cannot be combined with {other}; it is only used to fit "
                "Gaussians to counts that are registered with the same probability everywhere."
            )
    for name, value in (("exposure", exposure), ("background", background)):
        if value is not None and image_shape is None:
            raise ValueError(
                f"{name} was given, but image_shape=None. Set image_shape to the shape of the "
                "detector in pixels."
            )
        if value is not None and algorithm == "partition" and not is_cell:
            raise ValueError(
                f"{name} cannot be combined with algorithm='partition', which assigns every count "
                "to one component. Use algorithm='em'."
            )
    if edges == "reflect" and image_shape is None:
        raise ValueError(
            "edges='reflect' was given, but image_shape=None. Set image_shape, or use edges='auto'."
        )
    if image_shape is None:
        blur = None if psf is None else checked_psf(psf, n_features, n_features)
        return Instrument(blur=blur)
    shape = tuple(int(length) for length in image_shape)
    n_places = len(shape)
    if (exposure is not None or edges == "reflect") and n_features > LOCAL_DIMS:
        name = "exposure" if exposure is not None else "edges='reflect'"
        raise ValueError(
            f"{name} is only allowed for X with at most {LOCAL_DIMS} features, but X has "
            f"{n_features}."
        )
    if edges == "reflect" and has_noise:
        raise ValueError(
            "edges='reflect' cannot be combined with noise_covariance: recorded places may be "
            "outside of the image. Use edges='auto'."
        )
    reflects = edges == "reflect" or (edges == "auto" and n_features <= LOCAL_DIMS)
    reflects &= not (is_cell or has_noise)
    relative, function = (None, None) if exposure is None else exposure_map(exposure, shape)
    pixels &= not is_cell
    if pixels and not (reflects or has_noise) and relative is None and n_features <= LOCAL_DIMS:
        relative = np.ones(shape)  # an index of a pixel cannot be outside
    return Instrument(
        shape=shape,
        reflects=reflects,
        pixels=pixels,
        blur=None if psf is None else checked_psf(psf, n_places, n_features),
        exposure=relative,
        exposure_at=None if is_cell else function,
        background=None if background is None else background_map(background, shape, relative),
    )


def exposure_map(
    exposure: Any, shape: tuple[int, ...]
) -> tuple[Array, Callable[[Array], Array] | None]:
    """The relative exposure of each pixel, and at places if the exposure is a callable."""
    function = None
    if callable(exposure):
        values = np.empty(prod(shape))
        largest = 0.0
        line = (np.arange(_PLACES_OF_CALLABLE) + 0.5) / _PLACES_OF_CALLABLE
        inner = np.stack(np.meshgrid(*[line] * len(shape), indexing="ij"), axis=-1)
        inner = inner.reshape(-1, len(shape))
        for part in gen_batches(len(values), max(1, _NUMBERS // len(inner))):
            corners = np.stack(np.unravel_index(np.arange(len(values))[part], shape), axis=1)
            places = (corners[:, None] + inner).reshape(-1, len(shape))
            found = checked_values(exposure, places).reshape(-1, len(inner))
            values[part] = found.mean(axis=1)
            largest = max(largest, float(found.max()))
        values = values.reshape(shape)
        if largest > 0:
            function = RelativeExposure(exposure, largest)
    else:
        values = checked_map(exposure, "exposure", shape)
        largest = float(values.max())
    if not largest > 0:
        raise ValueError(
            "exposure is zero everywhere; expected at least one pixel of positive exposure."
        )
    return values / largest, function


def checked_map(values: Any, name: str, shape: tuple[int, ...]) -> Array:
    """A map of numbers of 0 or more, one for each pixel."""
    found = np.ma.asarray(values)
    if found.dtype.kind not in "buif":
        raise ValueError(
            f"{name} has dtype {found.dtype}; expected numbers, one for each pixel of "
            f"image_shape={shape}."
        )
    numbers: Array = np.ma.filled(found.astype(np.float64), 0.0)  # masked pixels are not used
    if numbers.shape != shape:
        raise ValueError(
            f"{name} has shape {numbers.shape}; expected image_shape={shape}, one value for each "
            "pixel."
        )
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError(
            f"{name} has values from {numbers.min():g} to {numbers.max():g}; allowed are finite "
            "values of 0 or more."
        )
    return numbers


def background_map(background: Any, shape: tuple[int, ...], exposure: Array | None) -> Array:
    """The probability of each pixel under the background, which is 0 where the exposure is 0."""
    is_flat = isinstance(background, str)
    values = np.ones(shape) if is_flat else checked_map(background, "background", shape)
    if exposure is not None:
        values = np.where(exposure > 0, values, 0)
    if not values.sum() > 0:
        raise ValueError(
            "background is zero on all exposed pixels; expected at least one positive value."
        )
    return values / values.sum()


def checked_psf(psf: Any, n_places: int, n_features: int) -> Array:
    """Covariance of the point spread function, (n_features, n_features)."""
    try:
        given = np.asarray(psf, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"psf={psf!r} is not an array of numbers.") from error
    if given.dtype == bool or isinstance(psf, bool):
        raise ValueError(f"psf={psf!r} is boolean; expected variances in squared pixels.")
    blur = np.zeros((n_features, n_features))
    if given.ndim == 0:
        blur[:n_places, :n_places] = given * np.eye(n_places)
    elif given.shape in {(n_places, n_places), (n_features, n_features)}:
        size = len(given)
        blur[:size, :size] = given
    else:
        shapes = " or ".join(str((n, n)) for n in dict.fromkeys((n_places, n_features)))
        raise ValueError(
            f"psf has shape {given.shape}; expected one variance, or a covariance matrix of shape "
            f"{shapes}. For a covariance of each count, give noise_covariance to fit."
        )
    if not np.isfinite(blur).all() or not np.allclose(blur, blur.T, rtol=1e-8, atol=0):
        raise ValueError("psf must be finite and symmetric: it is the covariance of a Gaussian.")
    blur = (blur + blur.T) / 2
    least = np.linalg.eigvalsh(blur)
    if least[0] < -1e-9 * max(least[-1], 0) or least[-1] <= 0:
        raise ValueError(
            f"psf has the variances {least.tolist()} along its axes; allowed are variances of 0 or "
            "more, of which at least one is positive. psf is a covariance, not a kernel."
        )
    return blur
