"""Images as architectures take them."""

from jaxtyping import Array, Float


def image_shape(in_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of one input; a `ValueError` if it is no image."""
    match in_shape:
        case (height, width):
            return height, width, 1
        case (height, width, channels):
            return height, width, channels
    raise ValueError(
        "Inputs must be images of shape (height, width) or (height, width, channels); got "
        f"{in_shape}. Reshape the data set's inputs, or choose an architecture for flat "
        "inputs such as `MLP`."
    )


def channels_first(x: Float[Array, "..."]) -> Float[Array, "channels height width"]:
    """An image in the layout of `equinox.nn.Conv2d`."""
    return x.reshape(image_shape(x.shape)).transpose(2, 0, 1)
