"""The noisy quadratic model under a linear optimizer: everything in closed form."""

import equinox as eqx
import jax
import jax.core
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._eigh import eigh
from .._kinds import as_count, as_number, check_kind
from .._numerics import matmul
from .._unrolls import AbstractUnroll
from ._linear_optimizer import LinearOptimizer
from ._require import floating, is_symmetric, positive_semidefinite, require


class NoisyQuadratic(AbstractUnroll):
    """The noisy quadratic model, as an unroll and in closed form.

    $$l(\\phi) = \\tfrac12 (\\phi - \\xi)^\\top H (\\phi - \\xi), \\qquad
    \\xi \\sim N(0, S) \\text{ at each step}$$

    under a [`equistar.analysis.LinearOptimizer`][]:

    $$\\phi' = A \\phi + (I - A) \\xi, \\qquad A = I - (\\alpha I + P) H$$

    Episodes start at $\\phi_0 \\sim N(\\mu, s^2 I)$. The paper's equation 8 drops the
    factor 1/2 of its equation 4; it is kept here.

    ??? cite

        ```bibtex
        @inproceedings{harrison2022closer,
            title={A Closer Look at Learned Optimization: Stability, Robustness, and
                   Inductive Biases},
            author={Harrison, James and Metz, Luke and Sohl-Dickstein, Jascha},
            booktitle={Advances in Neural Information Processing Systems},
            year={2022},
            eprint={2209.11208},
        }
        ```
    """

    hessian: Float[Array, "n n"]
    noise: Float[Array, "n n"]
    start: Float[Array, " n"]
    start_scale: float
    noise_root: Float[Array, "n n"]

    def __init__(
        self,
        hessian: Float[Array, "n n"],
        noise: Float[Array, "n n"],
        start: Float[Array, " n"] | None = None,
        start_scale: float = 0.0,
    ):
        """**Arguments:**

        - `hessian`: $H$, symmetric and positive semidefinite.
        - `noise`: $S$, the covariance of the optimum; zeros for none.
        - `start`: $\\mu$; by default zero.
        - `start_scale`: $s$.

        **Raises:**

        `ValueError` if the sizes differ, the Hessian or the noise is not symmetric and
        positive semidefinite, or `start_scale` is not one number that is known. Inside of
        jit, where values cannot be seen, results are NaN.
        """
        self.hessian = positive_semidefinite(hessian)
        noise = floating(noise, 2, "`noise`").astype(self.hessian.dtype)
        start = jnp.zeros(len(self.hessian)) if start is None else start
        self.start = floating(start, 1, "`start`").astype(self.hessian.dtype)
        shapes = self.hessian.shape, noise.shape, self.start.shape
        if len({n for shape in shapes for n in shape}) != 1:
            raise ValueError(
                "`hessian` and `noise` (jnp.zeros for none) must be square matrices of one "
                f"size, and `start` a vector as long; got shapes {shapes}."
            )
        message = "`noise` is a covariance: it must be symmetric."
        self.noise = require(is_symmetric(noise), noise, message)
        self.start_scale = as_number(start_scale, "`start_scale`", "1.0")
        values, vectors = eigh(self.noise)
        message = "`noise` is a covariance: it must be positive semidefinite."
        values = require(~(values[0] < -1e-5 * jnp.abs(values[-1])), values, message)
        self.noise_root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None]

    def init(self, theta: LinearOptimizer, *, key: PRNGKeyArray) -> Float[Array, " n"]:
        draw = jr.normal(key, self.start.shape, self.start.dtype)
        return self.start + self.start_scale * draw

    def step(
        self, theta: LinearOptimizer, carry: Float[Array, " n"], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        distance = carry - matmul(self.noise_root, jr.normal(key, carry.shape, carry.dtype))
        gradient = matmul(self.hessian, distance)
        loss = matmul(0.5 * distance, gradient)
        return carry - matmul(self._preconditioner(theta), gradient), loss

    def transition(self, theta: LinearOptimizer) -> Float[Array, "n n"]:
        """$A$, by which the mean of $\\phi$ moves."""
        eye = jnp.eye(len(self.start), dtype=self.start.dtype)
        return eye - matmul(self._preconditioner(theta), self.hessian)

    def mean(self, theta: LinearOptimizer, t: int | Int[Array, ""]) -> Float[Array, " n"]:
        """$E \\phi_t = A^t \\mu$; NaN where it is beyond the dtype's range.

        **Arguments:**

        - `theta`: the optimizer.
        - `t`: steps that were made, a whole number from 0 to 2**31 - 1; it may be traced.

        **Raises:**

        `ValueError` if `t` is none. Of a traced one only shape and dtype are checked.
        """
        return _product(self._moments(theta, t)[0], self.start)

    def covariance(
        self, theta: LinearOptimizer, t: int | Int[Array, ""]
    ) -> Float[Array, "n n"]:
        """$\\operatorname{Cov} \\phi_t$, that of the start included.

        $$s^2 A^t (A^t)^\\top + \\sum_{k < t} A^k (I - A) S (I - A)^\\top (A^k)^\\top$$

        **Arguments:** and **Raises:** as for `mean`.
        """
        power, covariance = self._moments(theta, t)
        return _conjugate(power, self._start_covariance()) + covariance

    def expected_loss(
        self, theta: LinearOptimizer, t: int | Int[Array, ""]
    ) -> Float[Array, ""]:
        """$E l_t = \\frac12 \\left( E\\phi_t^\\top H E\\phi_t +
        \\operatorname{tr} H (\\operatorname{Cov} \\phi_t + S) \\right)$.

        Infinite where it is beyond the dtype's range.

        **Arguments:** and **Raises:** as for `mean`.
        """
        mean, covariance = self.mean(theta, t), self.covariance(theta, t)
        return self._loss(mean, covariance, self.transition(theta))

    def mean_loss(self, theta: LinearOptimizer, steps: int) -> Float[Array, ""]:
        """$\\frac1T \\sum_{t < T} E l_t$, the meta-loss of an episode of T = `steps`.

        **Raises:** `ValueError` if `steps` is below 1.
        """
        steps = as_count(steps, "steps")
        transition, shock = self.transition(theta), self._shock(theta)

        def body(
            moments: tuple[Array, Array], _: None
        ) -> tuple[tuple[Array, Array], Array]:
            mean, covariance = moments
            after = _conjugate(transition, covariance) + shock
            loss = self._loss(mean, covariance, transition)
            return (_product(transition, mean), after), loss

        start = self.start, self._start_covariance()
        return jnp.mean(lax.scan(body, start, length=steps)[1])

    def meta_gradient(self, theta: LinearOptimizer, steps: int) -> LinearOptimizer:
        """The exact meta-gradient: that of `mean_loss` with respect to $\\alpha$ and $P$.

        Estimators' means must agree with it. As in `jax.grad`, it has the structure of
        `theta`; a number for $\\alpha$ is not differentiated and gives `None`.
        """
        return eqx.filter_grad(lambda t: self.mean_loss(t, steps))(theta)

    def stationary_covariance(self, theta: LinearOptimizer) -> Float[Array, "n n"]:
        """The solution of $C = A C A^\\top + (I - A) S (I - A)^\\top$ (Lyapunov).

        By doubling, which lowers on every backend; NaN where $\\rho(A) \\ge 1$, so that
        there is none. $A$ is rounded first: the relative error is of the order of
        $\\epsilon / (1 - \\rho(A))$ with $\\epsilon$ that of the dtype.
        """

        def body(_: Array, c: tuple[Array, Array]) -> tuple[Array, Array]:
            power, covariance = c
            more = matmul(matmul(power, covariance), power.T)
            return matmul(power, power), covariance + more

        # Until powers of 1 - 8 eps, or less, have vanished. Many more doublings would also
        # make those of 1 - eps vanish, which is 1 after rounding.
        start = self.transition(theta), self._shock(theta)
        doublings = jnp.finfo(self.hessian.dtype).nmant - 2
        power, covariance = lax.fori_loop(0, doublings, body, start)
        # By a norm: the entries of a matrix that does not vanish can all be small.
        vanished = jnp.max(jnp.sum(jnp.abs(power), axis=1)) < 0.5
        return jnp.where(vanished, covariance, jnp.nan)

    def _preconditioner(self, theta: LinearOptimizer) -> Float[Array, "n n"]:
        check_kind(theta, LinearOptimizer, "`theta`", "a `LinearOptimizer(alpha, matrix)`")
        matrix = theta.preconditioner()
        if matrix.shape != self.hessian.shape:
            raise ValueError(
                f"`theta.matrix` must have the Hessian's shape, {self.hessian.shape}; got "
                f"{matrix.shape}."
            )
        return matrix

    def _start_covariance(self) -> Float[Array, "n n"]:
        return self.start_scale**2 * jnp.eye(len(self.start), dtype=self.start.dtype)

    # A loss is not negative: what has overflowed makes it infinite, whatever its sign. Its
    # derivative is so as well, where a constant would have none.
    def _loss(
        self,
        mean: Float[Array, " n"],
        covariance: Float[Array, "n n"],
        transition: Float[Array, "n n"],
    ) -> Float[Array, ""]:
        of_mean = _product(mean, _product(self.hessian, mean))
        felt = jnp.where(self.hessian == 0, 0, covariance + self.noise)
        loss = 0.5 * (of_mean + jnp.sum(self.hessian * felt))
        overflown = jnp.isnan(loss) & jnp.all(jnp.isfinite(transition))
        huge = jnp.where(overflown, jnp.finfo(loss.dtype).max, 0)
        return jnp.where(overflown, 0, loss) + huge * (1 + jnp.sum(transition**2))

    def _shock(self, theta: LinearOptimizer) -> Float[Array, "n n"]:
        # By S and not by its root, which has no derivative where eigenvalues meet.
        gain = matmul(self._preconditioner(theta), self.hessian)
        return matmul(matmul(gain, self.noise), gain.T)

    # By the bits of t from the highest on: double, and add one where the bit is set.
    def _moments(
        self, theta: LinearOptimizer, t: int | Int[Array, ""]
    ) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
        transition, shock = self.transition(theta), self._shock(theta)
        bits = (_time(t) >> jnp.arange(30, -1, -1, jnp.int32)) & 1

        def body(
            c: tuple[Array, Array], bit: Int[Array, ""]
        ) -> tuple[tuple[Array, Array], None]:
            power, covariance = c
            covariance += _conjugate(power, covariance)
            power = _product(power, power)
            more = _product(transition, power), _conjugate(transition, covariance) + shock
            return jax.tree_util.tree_map(
                lambda a, b: jnp.where(bit == 1, a, b), more, (power, covariance)
            ), None

        eye = jnp.eye(len(self.start), dtype=self.start.dtype)
        return lax.scan(body, (eye, jnp.zeros_like(eye)), bits)[0]


# A product in which zero times what has overflowed is zero: a direction that diverges and
# that nothing points to says nothing of the others. What overflows is NaN in it.
def _product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    bad = lambda x: (~jnp.isfinite(x)).astype(x.dtype)
    there = lambda x: (x != 0).astype(x.dtype)
    finite = lambda x: jnp.where(jnp.isfinite(x), x, 0)
    overflown = matmul(bad(a), there(b)) + matmul(there(a), bad(b)) > 0
    return jnp.where(overflown, jnp.nan, matmul(finite(a), finite(b)))


def _conjugate(a: Float[Array, "n n"], x: Float[Array, "n n"]) -> Float[Array, "n n"]:
    return _product(_product(a, x), a.T)


def _time(t: int | Int[Array, ""]) -> Int[Array, ""]:
    # Inside of jit the value cannot be seen.
    known = not isinstance(t, jax.core.Tracer)
    if jnp.ndim(t) or not jnp.issubdtype(jnp.result_type(t), jnp.integer):
        raise ValueError(f"`t` must be a whole number of steps; got {t}.")
    if known and not 0 <= int(t) <= jnp.iinfo(jnp.int32).max:
        raise ValueError(f"`t` must be from 0 to 2**31 - 1 steps; got {t}.")
    return jnp.asarray(t, jnp.int32)


def star_quadratic() -> NoisyQuadratic:
    """The STAR paper's instance: $\\phi_0 \\sim N(0, 10 I)$, $S = I$.

    The Hessian's eigenvalues are .12527 and 1.47073. [`equistar.STAR`][] names the source.

    **Returns:** a [`equistar.analysis.NoisyQuadratic`][].
    """
    hessian = jnp.array([[1.11, 0.596], [0.596, 0.486]])
    return NoisyQuadratic(hessian, jnp.eye(2), start_scale=10**0.5)
