"""Images (n, height, width, channels) made ready to train on: padded, grey repeated in colours, standardized."""

import numpy as np

from engine.base.errors import UserError


def padded(images: np.ndarray, side: int) -> np.ndarray:
    """Images in the middle of zeros, (n, side, side, c); a side of 0 leaves them as they are."""
    if not side:
        return images
    height, width = images.shape[1:3]
    if side < max(height, width):
        raise UserError(f"[problem.data] pad_to = {side}: the images are {height}×{width}; use 0 or a larger side")
    above, left = (side - height) // 2, (side - width) // 2
    return np.pad(images, ((0, 0), (above, side - height - above), (left, side - width - left), (0, 0)))


def coloured(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey images repeated in so many channels, (n, h, w, channels); 0 leaves them as they are."""
    had = images.shape[-1]
    if channels in (0, had):
        return images
    if had > 1:
        raise UserError(f"[problem.data] channels = {channels}: the images have {had}, and only grey is repeated; use 0")
    return np.repeat(images, channels, axis=-1)


def standardized(how: str, inputs: np.ndarray, *others: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Inputs, and others after them, less the mean of the inputs and divided by their spread, in float32; and how, in words."""
    if how == "none":
        return [array.astype(np.float32) for array in (inputs, *others)], "not standardized"
    if how == "channel" and inputs.ndim != 4:
        raise UserError('[problem.data] standardize = "channel": only images have channels; use "global" or "none"')
    axes: int | tuple[int, ...] | None
    axes, removed = {"mean_image": (0, "mean image"), "global": (None, "mean"), "channel": ((0, 1, 2), "mean of each channel")}[how]
    mean = inputs.mean(axis=axes)
    spread = (inputs - mean).std(axis=axes if how == "channel" else None)
    if np.any(spread == 0):
        raise UserError(f'[problem.data] standardize = "{how}": all inputs are equal; use more examples, or "none"')
    prepared = [((array - mean) / spread).astype(np.float32) for array in (inputs, *others)]
    return prepared, f"{removed} removed, divided by {'its' if how == 'channel' else 'the'} standard deviation"
