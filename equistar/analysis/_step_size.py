"""Learning the step size of gradient descent on a quadratic, in closed form."""

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._require import check_scalars, floating, require


class SignedLog(eqx.Module):
    """A number as its sign and the logarithm of its magnitude, which cannot overflow.

    **Attributes:**

    - `sign`: -1, 0 or 1.
    - `log`: the natural logarithm of the magnitude.
    """

    sign: Float[Array, ""]
    log: Float[Array, ""]

    def value(self) -> Float[Array, ""]:
        """The number itself; infinite or zero where the dtype cannot hold it."""
        return self.sign * jnp.exp(self.log)


Horizon = int | Int[Array, ""]


class StepSizeProblem(eqx.Module):
    """Gradient descent on $f(w) = \\frac12 w^\\top H w$ as a function of its step size.

    With eigenpairs $(\\lambda_i, u_i)$ of $H$, $c_i = \\langle w_0, u_i \\rangle$ and
    $|w_0| = 1$, after $t$ steps of size $\\eta$:

    $$F(\\eta) = \\tfrac12 \\sum_i c_i^2 \\lambda_i (1 - \\eta \\lambda_i)^{2t}, \\qquad
    G(\\eta) = \\tfrac1t \\log F(\\eta)$$

    Everything is computed in the log domain: relative errors stay near rounding even if $F$
    itself overflows or underflows.

    **Attributes:**

    - `eigenvalues`: $\\lambda_i > 0$.
    - `coefficients`: $c_i$, not all zero; they are scaled to a norm of 1.

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

    eigenvalues: Float[Array, " n"]
    coefficients: Float[Array, " n"]

    def __init__(self, eigenvalues: Float[Array, " n"], coefficients: Float[Array, " n"]):
        """**Arguments:** as the attributes.

        **Raises:**

        `ValueError` if the two differ in shape, an eigenvalue is not positive and finite,
        or all coefficients are zero. Inside of jit, where values cannot be seen, results
        are NaN.
        """
        eigenvalues = floating(eigenvalues, 1, "`eigenvalues`")
        coefficients = floating(coefficients, 1, "`coefficients`")
        shapes = jnp.shape(eigenvalues), jnp.shape(coefficients)
        if len(set(shapes)) != 1 or eigenvalues.size == 0:
            raise ValueError(
                "`eigenvalues` and `coefficients` must be vectors of one length; got the "
                f"shapes {shapes[0]} and {shapes[1]}."
            )
        allowed = jnp.all((eigenvalues > 0) & jnp.isfinite(eigenvalues))
        message = "`eigenvalues` must be positive and finite."
        self.eigenvalues = require(allowed, eigenvalues, message)
        norm = jnp.linalg.norm(coefficients)
        message = "`coefficients` must be finite and not all zero."
        self.coefficients = coefficients / require(
            (norm > 0) & jnp.isfinite(norm), norm, message
        )

    def loss(self, step_size: Float[Array, ""], steps: Horizon) -> SignedLog:
        """$F(\\eta)$, the loss after `steps` steps.

        **Arguments:**

        - `step_size`: $\\eta$, one number.
        - `steps`: $t$, a whole number of at least 1; it may be traced.

        **Raises:**

        `ValueError` if `step_size` is not one number, or `steps` is not a whole number of
        at least 1. Inside of jit, where values cannot be seen, results are NaN instead.
        """
        return _signed_sum(*self._terms(step_size, steps, 0))

    def loss_slope(self, step_size: Float[Array, ""], steps: Horizon) -> SignedLog:
        """$F'(\\eta) = -t \\sum_i c_i^2 \\lambda_i^2 (1 - \\eta \\lambda_i)^{2t - 1}$.

        **Arguments:** and **Raises:** as for `loss`.
        """
        out = _signed_sum(*self._terms(step_size, steps, 1))
        return SignedLog(-out.sign, out.log + jnp.log(_float(steps, out.log)))

    def log_objective(
        self, step_size: Float[Array, ""], steps: Horizon
    ) -> Float[Array, ""]:
        """$G(\\eta)$, whose gradient neither explodes nor vanishes.

        **Arguments:** and **Raises:** as for `loss`.
        """
        log = self.loss(step_size, steps).log
        return log / _float(steps, log)

    def log_objective_slope(
        self, step_size: Float[Array, ""], steps: Horizon
    ) -> Float[Array, ""]:
        """$G'(\\eta) = F'(\\eta) / (t F(\\eta))$.

        **Arguments:** and **Raises:** as for `loss`.
        """
        # An average over the terms of F, for a difference of two long logarithms is wrong
        # by their rounding.
        shares = jax.nn.softmax(self._terms(step_size, steps, 0)[0])
        left = _left(*_product(step_size, self.eigenvalues))
        solved = left == 0
        each = jnp.where(solved, 0, shares * self.eigenvalues / jnp.where(solved, 1, left))
        # Where nothing is left there is no slope.
        return jnp.where(jnp.all(solved), jnp.nan, -2 * jnp.sum(each))

    def best_step_size(self, steps: Horizon) -> Float[Array, ""]:
        """$\\eta^*$, the one minimiser of $F$ and $G$: where their slope changes sign.

        It depends on the horizon, and not always monotonically; for a few steps it can
        lie beyond $2 / \\lambda_{\\max}$. By bisection of
        $[1 / \\lambda_{\\max}, 1 / \\lambda_{\\min}]$, outside of which every term of $F'$
        has one sign, in the logarithm and to rounding.

        **Arguments:**

        - `steps`: as for `loss`.

        **Raises:** as `loss`, of `steps`.
        """
        bottom, top = 1 / jnp.max(self.eigenvalues), 1 / jnp.min(self.eigenvalues)
        # Once, for inside of the loop it could not be refused.
        known = jnp.isfinite(_float(steps, top))

        def body(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = jnp.clip(jnp.sqrt(low) * jnp.sqrt(high), low, high)
            falling = self.loss_slope(middle, steps).sign < 0
            return jnp.where(falling, middle, low), jnp.where(falling, high, middle)

        low, high = lax.fori_loop(0, 90, body, (bottom, top))
        return jnp.where(known, (low + high) / 2, jnp.nan)

    def vanishing_bound(self, step_size: Float[Array, ""], steps: Horizon) -> SignedLog:
        """What $|F'|$ is below for every $\\eta$ (Theorem 3).

        $$t \\sum_i c_i^2 \\lambda_i^2 |1 - \\eta \\lambda_i|^{2t - 1}$$

        For $\\eta < 2 / \\lambda_{\\max}$ it falls exponentially with $t$.

        **Arguments:** and **Raises:** as for `loss`.
        """
        logs, signs = self._terms(step_size, steps, 1)
        out = _signed_sum(logs, jnp.abs(signs))
        return SignedLog(out.sign, out.log + jnp.log(_float(steps, out.log)))

    def exploding_bound(self, step_size: Float[Array, ""], steps: Horizon) -> SignedLog:
        """What $|F'|$ is above for $\\eta > 2 / \\lambda_{\\max}$ (Theorem 3).

        $$c_1^2 L^2 t (\\eta L - 1)^{2t - 1} - L^2 t, \\qquad L = \\lambda_{\\max}$$

        with $c_1$ the norm of $w_0$ in the eigenspace of $L$. It grows exponentially with
        $t$; where it is negative it says nothing.

        **Arguments:** and **Raises:** as for `loss`.
        """
        check_scalars(step_size=step_size)
        top = jnp.max(self.eigenvalues)
        c = self._share(top)
        power = 2 * _float(steps, top) - 1
        scale = 2 * jnp.log(top) + jnp.log(_float(steps, top))
        log = 2 * jnp.log(c) + power * jnp.log(jnp.abs(step_size * top - 1))
        signs = jnp.stack([jnp.ones_like(log), -jnp.ones_like(log)])
        out = _signed_sum(jnp.stack([log, jnp.zeros_like(log)]), signs)
        return SignedLog(out.sign, out.log + scale)

    def log_objective_bound(self) -> Float[Array, ""]:
        """What $|G'|$ is below for every $\\eta \\ge 0$ and every $t$ (Theorem 4).

        $$\\frac{4 L^3}{c_{\\min}^2 \\alpha (L - \\alpha)}$$

        with $L$ and $\\alpha$ the largest and smallest eigenvalue, and $c_{\\min}$ the
        smaller of the norms of $w_0$ in their eigenspaces. The paper gives the order; the
        constant follows from
        $|1 - \\eta \\lambda_i| \\le m = \\max(|1 - \\eta L|, |1 - \\eta \\alpha|)$ and
        $m \\ge (L - \\alpha) / (L + \\alpha)$. Infinite if all eigenvalues coincide.
        """
        bottom, top = jnp.min(self.eigenvalues), jnp.max(self.eigenvalues)
        c = jnp.minimum(self._share(bottom), self._share(top))
        return 4 * top**3 / (c**2 * bottom * (top - bottom))

    # The norm of $w_0$ in an eigenspace.
    def _share(self, eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        within = self.eigenvalues == eigenvalue
        return jnp.sqrt(jnp.sum(jnp.where(within, self.coefficients**2, 0)))

    # log and sign of c^2 lam (1 - eta lam)^(2t) / 2, or of its derivative's terms.
    def _terms(
        self, step_size: Float[Array, ""], steps: Horizon, order: int
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        check_scalars(step_size=step_size)
        lam, c = self.eigenvalues, self.coefficients
        product, rest = _product(step_size, lam)
        remainder = _left(product, rest)
        # Of a factor near 1 the logarithm loses how far it is from 1, and log1p keeps it.
        small, near_two = product < 0.5, jnp.abs(product - 2) < 0.5
        beyond = jnp.where(small, -product, jnp.where(near_two, (product - 2) + rest, 0))
        factor = jnp.where(small | near_two, 0.5, jnp.abs(remainder))
        log = jnp.where(small | near_two, jnp.log1p(beyond), _log(factor))
        power = 2 * _float(steps, log) - order
        weight = 2 * _log(jnp.abs(c)) + (1 + order) * jnp.log(lam)
        half = 0.0 if order else -jnp.log(2.0)
        sign = jnp.sign(remainder) if order else jnp.ones_like(lam)
        return weight + half + power * log, sign


# A product, and what its rounding has taken off: products of halves of numbers are exact.
# Where a product is near 1, what is left of 1 is of that size.
def _product(x: Float[Array, ""], y: Float[Array, " n"]) -> tuple[Array, Array]:
    exponent, mantissa = jnp.finfo(y.dtype).nexp, (jnp.finfo(y.dtype).nmant - 1) // 2
    x = jnp.asarray(x, y.dtype)
    x_high, y_high = (lax.reduce_precision(z, exponent, mantissa) for z in (x, y))
    x_low, y_low = x - x_high, y - y_high
    product = x * y
    rest = (x_high * y_high - product) + x_high * y_low + x_low * y_high + x_low * y_low
    return product, lax.stop_gradient(jnp.where(jnp.isfinite(rest), rest, 0))


# What is left of 1.
def _left(product: Float[Array, " n"], rest: Float[Array, " n"]) -> Float[Array, " n"]:
    return (1 - product) - rest


# Minus infinity at zero, and of zero slope: so is the slope of a power of what is zero.
def _log(x: Float[Array, " n"]) -> Float[Array, " n"]:
    nothing = x == 0
    return jnp.where(nothing, -jnp.inf, jnp.log(jnp.where(nothing, 1, x)))


def _float(steps: Horizon, like: Array) -> Float[Array, ""]:
    number = jnp.asarray(steps, like.dtype)
    whole = jnp.isfinite(number) & (number == jnp.floor(number))
    message = f"`steps` must be a whole number of at least 1; got {steps}."
    return require((number >= 1) & whole, number, message)


def _signed_sum(logs: Float[Array, " n"], signs: Float[Array, " n"]) -> SignedLog:
    log, sign = jax.scipy.special.logsumexp(logs, b=signs, return_sign=True)
    return SignedLog(sign, log)
