"""Step sizes meta-trained on training or on validation loss, on least squares."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._eigh import eigh
from .._kinds import as_count
from .._numerics import matmul
from ._require import floating, require


class LeastSquares(eqx.Module):
    """Samples of $y = \\langle w^*, x \\rangle + s \\epsilon$.

    **Attributes:**

    - `inputs`: $x \\sim N(0, I)$, one per row.
    - `targets`: $y$.
    - `truth`: $w^*$, uniform on the unit sphere.
    """

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    truth: Float[Array, " d"]

    def __init__(
        self,
        inputs: Float[Array, "n d"],
        targets: Float[Array, " n"],
        truth: Float[Array, " d"],
    ):
        """**Arguments:** as the attributes.

        **Raises:**

        `ValueError` if there is not one target for each row, and one number of the truth
        for each column.
        """
        self.inputs = floating(inputs, 2, "`inputs`")
        self.targets = floating(targets, 1, "`targets`")
        self.truth = floating(truth, 1, "`truth`")
        if (
            self.inputs.shape != (self.targets.size, self.truth.size)
            or self.inputs.size == 0
        ):
            raise ValueError(
                "`inputs` must have a row for each of the `targets`, and a column for each "
                f"number of `truth`; got the shapes {self.inputs.shape}, "
                f"{self.targets.shape} and {self.truth.shape}."
            )

    def loss(self, weights: Float[Array, "*m d"]) -> Float[Array, "*m"]:
        """$\\frac{1}{2n} \\sum (y - \\langle w, x \\rangle)^2$, for each of the weights."""
        residual = matmul(weights, self.inputs.T) - jnp.broadcast_to(
            self.targets, (*weights.shape[:-1], len(self.targets))
        )
        return 0.5 * jnp.mean(residual**2, axis=-1)

    def split(self, first: int) -> tuple["LeastSquares", "LeastSquares"]:
        """The `first` samples, and the others, of the same problem.

        **Raises:**

        `ValueError` unless both parts have at least one sample.
        """
        x, y = self.inputs, self.targets
        first = as_count(first, "first")
        if first >= len(y):
            raise ValueError(
                f"`first` must leave some of the {len(y)} samples; got {first}."
            )
        return (
            LeastSquares(x[:first], y[:first], self.truth),
            LeastSquares(x[first:], y[first:], self.truth),
        )


def draw_least_squares(
    samples: int, size: int, noise: float | Float[Array, ""], *, key: PRNGKeyArray
) -> LeastSquares:
    """Draws a least-squares problem, as described in [`equistar.analysis.LeastSquares`][].

    **Arguments:**

    - `samples`: $n$, the number of samples.
    - `size`: $d$, the number of dimensions.
    - `noise`: $s$, the standard deviation of the noise in the targets.
    - `key`: a PRNG key.

    **Returns:**

    A [`equistar.analysis.LeastSquares`][].

    **Raises:**

    `ValueError` if `samples` or `size` is below 1.
    """
    samples = as_count(samples, "samples")
    size = as_count(size, "size")
    truth_key, input_key, noise_key = jr.split(key, 3)
    direction = jr.normal(truth_key, (size,))
    truth = direction / jnp.linalg.norm(direction)
    inputs = jr.normal(input_key, (samples, size))
    return LeastSquares(
        inputs, matmul(inputs, truth) + noise * jr.normal(noise_key, (samples,)), truth
    )


def descent_iterates(
    problem: LeastSquares,
    step_sizes: Float[Array, " m"],
    steps: int,
    freeze: float | Float[Array, ""] = float("inf"),
) -> Float[Array, "m d"]:
    """Where gradient descent from zero is after `steps` steps, for many step sizes at once.

    With $X / \\sqrt n = U S V^\\top$ and $c = S U^\\top y / \\sqrt n$:

    $$w_t = V \\operatorname{diag}\\left(
    \\frac{1 - (1 - \\eta s_i^2)^t}{s_i^2} \\right) c$$

    **Arguments:**

    - `problem`: the one to solve.
    - `step_sizes`: $\\eta$, one for each iterate.
    - `steps`: $t$.
    - `freeze`: an iterate whose norm reaches this value freezes at that norm along the
        first axis, as in the paper, where it is 40 times the noise.

    **Returns:**

    The iterates, of shape (step sizes, dimensions).

    **Raises:**

    `ValueError` if a step size is not finite, or `freeze` is below zero. Inside of jit,
    where values cannot be seen, results are NaN.

    ??? cite

        ```bibtex
        @inproceedings{wang2021guarantees,
            title={Guarantees for Tuning the Step Size using a Learning-to-Learn Approach},
            author={Wang, Xiang and Yuan, Shuai and Wu, Chenwei and Ge, Rong},
            booktitle={International Conference on Machine Learning},
            year={2021},
            eprint={2006.16495},
        }
        ```
    """
    steps = as_count(steps, "steps", least=0)
    step_sizes = floating(step_sizes, 1, "`step_sizes`")
    finite = jnp.all(jnp.isfinite(step_sizes))
    step_sizes = require(finite, step_sizes, "`step_sizes` must be finite numbers.")
    norm = floating(freeze, 0, "`freeze`").astype(step_sizes.dtype)
    freeze = require(norm >= 0, norm, f"`freeze` must be at least 0; got {freeze}.")
    modes = _modes(problem)
    sizes = modes.coefficients * modes.lengths
    factor = 1 - step_sizes[:, None] * modes.curvatures[None]

    # The sum of a geometric series: nothing is divided by a curvature near zero.
    def body(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        filtered, frozen = carry
        filtered = filtered * factor + step_sizes[:, None]
        # Its square would overflow long before the norm. A comparison with NaN is false:
        # what has itself overflowed has gone beyond.
        each = filtered * sizes[None]
        largest = jnp.max(jnp.abs(each), axis=1)
        share = each / jnp.where(largest > 0, largest, 1)[:, None]
        norm = largest * jnp.linalg.norm(share, axis=1)
        return (filtered, frozen | ~(norm < freeze)), None

    start = jnp.zeros_like(factor), jnp.zeros(len(step_sizes), bool)
    (filtered, frozen), _ = jax.lax.scan(body, start, length=steps)
    along = jnp.where(frozen[:, None], 0, filtered) * modes.coefficients[None]
    axis = jnp.zeros_like(problem.truth).at[0].set(freeze)
    return jnp.where(frozen[:, None], axis[None], matmul(along, modes.directions.T))


class _Modes(eqx.Module):
    """Directions that descent does not mix: in $w = \\sum_i a_i c_i v_i$ each is alone.

    The loss has curvature $s_i^2$ along $v_i$; $-c_i$ is its slope at zero over $|v_i|^2$.
    """

    curvatures: Float[Array, " k"]
    coefficients: Float[Array, " k"]
    directions: Float[Array, "d k"]
    lengths: Float[Array, " k"]


# From the smaller of the two Gram matrices, whose eigenvalues are squared singular values.
# The inputs stand alone in what is dear, so that under vmap many targets share it.
def _modes(problem: LeastSquares) -> _Modes:
    n = len(problem.targets)
    x, y = problem.inputs / n**0.5, problem.targets / n**0.5
    if n < len(problem.truth):
        values, u = eigh(matmul(x, x.T))
        curvatures = jnp.maximum(values, 0)
        return _Modes(curvatures, matmul(u.T, y), matmul(x.T, u), jnp.sqrt(curvatures))
    values, v = eigh(matmul(x.T, x))
    slope = matmul(x.T, y)
    return _Modes(jnp.maximum(values, 0), matmul(v.T, slope), v, jnp.ones_like(values))
