"""Small problems whose solutions are known."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._keys import apart
from .._kinds import as_count, check_key
from ._base import AbstractTask, Split
from ._quadratic import checked_curvature, checked_noise


class LinearTeacher(AbstractTask):
    """Least squares on fresh examples from a linear teacher, with noise.

    $$l(w) = \\frac{1}{2B} \\sum_b (\\langle w - w^*, x_b \\rangle - s \\epsilon_b)^2,
    \\qquad x_b \\sim N(0, \\operatorname{diag}(h)), \\quad \\epsilon_b \\sim N(0, 1)$$

    So $h$ are the eigenvalues of the mean loss's Hessian, and $s^2 / 2$ is the lowest mean
    loss. The teacher $w^*$ is uniform on the unit sphere, and so are the starts.

    Meta-training clips recorded losses at 1.5 times the mean loss of the worst start.
    """

    curvature: Float[Array, " n"]
    teacher: Float[Array, " n"]
    noise: float = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    loss_bounds: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        curvature: Float[Array, " n"],
        noise: float = 0.1,
        batch_size: int = 16,
        *,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `curvature`: $h$, the variances of the inputs.
        - `noise`: $s$, the standard deviation of the noise.
        - `batch_size`: $B$, examples in a minibatch. They are fresh on every split.
        - `key`: the teacher is drawn with it.

        **Raises:**

        `ValueError` if the curvature is not a vector of finite numbers of at least 0,
        `noise` is not finite and at least 0, `batch_size` is below 1, or `key` is no key.
        """
        check_key(key)
        batch_size = as_count(batch_size, "batch_size")
        self.curvature = checked_curvature(curvature)
        # So that the start of the same key is not the teacher.
        self.teacher = _on_sphere(self.curvature, apart(key, "teac"))
        self.noise = checked_noise(noise)
        self.batch_size = batch_size
        # A start is at most 2 away from the teacher.
        worst = 2 * float(jnp.max(self.curvature)) + self.noise**2 / 2
        self.loss_bounds = 0.0, 1.5 * worst

    def init(self, *, key: PRNGKeyArray) -> Float[Array, " n"]:
        return _on_sphere(self.curvature, key)

    def loss(
        self, params: Float[Array, " n"], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        input_key, noise_key = jr.split(key)
        dtype, shape = params.dtype, (self.batch_size, len(params))
        deviations = jnp.sqrt(self.curvature).astype(dtype)
        inputs = jr.normal(input_key, shape, dtype) * deviations[None]
        noise = self.noise * jr.normal(noise_key, shape[:1], dtype)
        residual = inputs @ (params - self.teacher.astype(dtype)) - noise
        return 0.5 * jnp.mean(residual**2)


def _on_sphere(like: Float[Array, " n"], key: PRNGKeyArray) -> Float[Array, " n"]:
    direction = jr.normal(key, like.shape, like.dtype)
    return direction / jnp.sqrt(jnp.sum(direction**2))


class Rosenbrock(AbstractTask):
    """The curved valley
    $l(p) = \\sum_{i < n} 100 (p_{i + 1} - p_i^2)^2 + (1 - p_i)^2$.

    It has no noise. The minimum, 0, is where all are 1; starts are drawn within 0.1 of
    (-1.2, 1, -1.2, ...).

    Meta-training clips recorded losses at 1.5 times that of the undisturbed start.
    """

    size: int = eqx.field(static=True)

    def __init__(self, size: int = 2):
        """**Arguments:**

        - `size`: $n$.

        **Raises:**

        `ValueError` if `size` is below 2.
        """
        size = as_count(size, "size", least=2)
        self.size = size

    @property
    def loss_bounds(self) -> tuple[float, float]:
        # Terms of the start go between p_i = -1.2 and p_i = 1.
        falls, rises = self.size // 2, (self.size - 1) // 2
        return 0.0, 1.5 * (falls * 24.2 + rises * 484.0)

    def init(self, *, key: PRNGKeyArray) -> Float[Array, " n"]:
        start = jnp.where(jnp.arange(self.size) % 2 == 0, -1.2, 1.0)
        return start + jr.uniform(key, (self.size,), start.dtype, -0.1, 0.1)

    def loss(
        self, params: Float[Array, " n"], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        here, there = params[:-1], params[1:]
        return jnp.sum(100 * (there - here**2) ** 2 + (1 - here) ** 2)
