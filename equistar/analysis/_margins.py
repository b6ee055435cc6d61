"""How far inside the bounds of the stability theorems a linear optimizer is."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._eigh import eigh
from .._numerics import matmul
from ._require import (
    check_scalars,
    floating,
    is_symmetric,
    positive_semidefinite,
    require,
)


class Margin(eqx.Module):
    """How far inside (positive) or outside (negative) of stability a case lies.

    **Attributes:**

    - `sufficient`: the distance to the nearest of a theorem's bounds. If it is not
        negative, neither is `exact`, to rounding.
    - `exact`: $1 - \\rho(A)$.

    Both are differentiable in every argument but the Hessian; in the Hessian, `exact` is
    differentiable if its eigenvalues are distinct and positive; where one is zero, the
    slope may be NaN.
    """

    sufficient: Float[Array, ""]
    exact: Float[Array, ""]


def linear_margin(
    hessian: Float[Array, "n n"],
    alpha: float | Float[Array, ""],
    matrix: Float[Array, "n n"],
) -> Margin:
    """For $\\phi' = (I - (\\alpha I + P) H) \\phi$ with a symmetric $P$ (Theorem 1).

    $$-\\alpha \\le \\lambda_{\\min}(P), \\qquad
    \\lambda_{\\max}(P) \\le 2 / \\lambda_{\\max}(H) - \\alpha$$

    The theorem is that of the STAR paper ([`equistar.STAR`][]). The paper only requires $P$
    to be diagonalisable with real eigenvalues, which is not enough: see the page on theory.

    **Arguments:**

    - `hessian`: $H$, symmetric and positive semidefinite. Eigenvalues below zero by no
        more than float32's rounding of the largest count as zero.
    - `alpha`: $\\alpha \\ge 0$, one number: of shape `()`.
    - `matrix`: $P$, symmetric.

    **Returns:**

    A [`equistar.analysis.Margin`][].

    **Raises:**

    `ValueError` if `alpha` is not one number, `matrix` is not symmetric, or `hessian` is
    not positive semidefinite. Inside of jit, where values cannot be seen, both margins are
    NaN instead; shapes are refused there too.
    """
    hessian, matrix = _checked(hessian, alpha, matrix)
    low, high = _extremes(matrix)
    sufficient = jnp.minimum(alpha + low, 2 / _extremes(hessian)[1] - alpha - high)
    root = _power(hessian, 0.5)
    return Margin(sufficient, _exact(root, _shifted(alpha, matrix)))


def preconditioned_margin(
    hessian: Float[Array, "n n"],
    alpha: float | Float[Array, ""],
    matrix: Float[Array, "n n"],
) -> Margin:
    """For $\\phi' = (I - H^{-1/2} (\\alpha I + P) H) \\phi$ with a symmetric $P$ (Lemma 2).

    $$-\\alpha \\le \\lambda_{\\min}(P), \\qquad
    \\lambda_{\\max}(P) \\le 2 / \\sqrt{\\lambda_{\\max}(H)} - \\alpha$$

    **Arguments:** as for [`equistar.analysis.linear_margin`][].

    **Returns:** and **Raises:** likewise.
    """
    hessian, matrix = _checked(hessian, alpha, matrix)
    low, high = _extremes(matrix)
    limit = 2 / jnp.sqrt(_extremes(hessian)[1])
    sufficient = jnp.minimum(alpha + low, limit - alpha - high)
    root = _power(hessian, 0.25)
    return Margin(sufficient, _exact(root, _shifted(alpha, matrix)))


def disturbed_margin(
    hessian: Float[Array, "n n"],
    alpha: float | Float[Array, ""],
    matrix: Float[Array, "n n"],
    disturbance: Float[Array, " n"],
    bound: Float[Array, " n"],
) -> Margin:
    """For $P = D \\tilde P$, $D = \\operatorname{diag}(d)$ unknown but bounded (Lemma 3).

    $$-\\alpha / \\max \\bar d \\le \\lambda_{\\min}(\\tilde P), \\qquad
    \\lambda_{\\max}(\\tilde P) \\le
    (2 / \\lambda_{\\max}(H) - \\alpha) / \\max \\bar d$$

    with $0 < d_i \\le \\bar d_i$, $D \\tilde P = \\tilde P D$ and
    $0 < \\alpha < 2 / \\lambda_{\\max}(H)$. The sufficient margin includes the last bound:
    outside of it, a small disturbance leaves an unstable nominal term.

    **Arguments:**

    - `hessian`, `alpha`: as for [`equistar.analysis.linear_margin`][].
    - `matrix`: $\\tilde P$, symmetric.
    - `disturbance`: $d$; the exact margin is for this one.
    - `bound`: $\\bar d$.

    **Returns:** as [`equistar.analysis.linear_margin`][].

    **Raises:**

    As [`equistar.analysis.linear_margin`][], and if `disturbance` is not in (0, `bound`]
    or does not commute with `matrix`.
    """
    hessian, matrix = _checked(hessian, alpha, matrix)
    disturbance = _vector(disturbance, "`disturbance`", len(hessian))
    bound = _vector(bound, "`bound`", len(hessian))
    bounded = jnp.all((disturbance > 0) & (disturbance <= bound))
    matrix = require(bounded, matrix, "`disturbance` must be in (0, `bound`].")
    disturbed = disturbance[:, None] * matrix
    message = "`disturbance` must commute with `matrix`."
    commutes = is_symmetric(disturbed)
    matrix, disturbed = (require(commutes, x, message) for x in (matrix, disturbed))
    low, high = _extremes(matrix)
    worst, limit = jnp.max(bound), 2 / _extremes(hessian)[1]
    learned = jnp.minimum(alpha / worst + low, (limit - alpha) / worst - high)
    sufficient = jnp.minimum(learned, jnp.minimum(alpha, limit - alpha))
    root = _power(hessian, 0.5)
    return Margin(sufficient, _exact(root, _shifted(alpha, disturbed)))


def momentum_margin(
    hessian: Float[Array, "n n"],
    step_size: float | Float[Array, ""],
    decay: float | Float[Array, ""],
) -> Margin:
    """Momentum as an average, $m' = \\beta m + (1 - \\beta) g$, $\\phi' = \\phi - a m'$.

    Stable, jointly in $(\\phi, m)$, if and only if

    $$0 < a < \\frac{2 (1 + \\beta)}{(1 - \\beta) \\lambda_{\\max}(H)}$$

    The sufficient margin is the distance to these bounds of $a$, the exact one
    $1 - \\rho$ of the joint map, from the roots of
    $z^2 - (1 + \\beta - a (1 - \\beta) \\lambda) z + \\beta$ for each eigenvalue.

    **Arguments:**

    - `hessian`: $H$, symmetric and positive semidefinite.
    - `step_size`: $a$, one number: of shape `()`.
    - `decay`: $\\beta$ in [0, 1), one number as well.

    **Returns:**

    A [`equistar.analysis.Margin`][].

    **Raises:**

    `ValueError` if `step_size` or `decay` is not one number, `decay` is not in [0, 1), or
    `hessian` is not positive semidefinite. Inside of jit, where values cannot be seen, both
    margins are NaN instead; shapes are refused there too.
    """
    check_scalars(step_size=step_size, decay=decay)
    return _momentum(hessian, step_size * (1 - decay), decay, step_size, 1 - decay)


def heavy_ball_margin(
    hessian: Float[Array, "n n"],
    step_size: float | Float[Array, ""],
    decay: float | Float[Array, ""],
) -> Margin:
    """For heavy ball, $m' = \\beta m + g$, $\\phi' = \\phi - a m'$.

    Stable, jointly in $(\\phi, m)$, if and only if
    $0 < a < 2 (1 + \\beta) / \\lambda_{\\max}(H)$.

    **Arguments:** as for [`equistar.analysis.momentum_margin`][].

    **Returns:** and **Raises:** likewise.
    """
    check_scalars(step_size=step_size, decay=decay)
    return _momentum(hessian, step_size, decay, step_size, 1.0)


def _momentum(
    hessian: Float[Array, "n n"],
    effective: float | Float[Array, ""],
    decay: float | Float[Array, ""],
    step_size: float | Float[Array, ""],
    share: float | Float[Array, ""],
) -> Margin:
    hessian = positive_semidefinite(hessian)
    decay = jnp.asarray(decay, hessian.dtype)
    decay = require((decay >= 0) & (decay < 1), decay, "`decay` must be in [0, 1).")
    values = jnp.maximum(_values(hessian), 0)
    limit = 2 * (1 + decay) / (share * values[-1])
    sufficient = jnp.minimum(step_size, limit - step_size)
    return Margin(sufficient, jnp.min(_inside(effective * values, decay)))


# 1 minus the larger root of z^2 - (1 + decay - gain) z + decay in magnitude, without
# differences of numbers that are nearly equal, as they are where the decay is near 1.
def _inside(gain: Float[Array, " n"], decay: Float[Array, ""]) -> Float[Array, " n"]:
    gap = 1 - decay
    discriminant = gap**2 + gain * (gain - 2 * (1 + decay))
    root = _root(discriminant)
    positive = 2 * gain / (gap + gain + root)
    negative = 1 - (gain - 1 - decay + root) / 2
    real = jnp.where(gain <= 1 + decay, positive, negative)
    return jnp.where(discriminant < 0, gap / (1 + _root(decay)), real)


# Zero, and of zero slope, where x is not positive; NaN where it is NaN.
def _root(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    nothing = x <= 0
    return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, x)))


def _checked(
    hessian: Float[Array, "n n"],
    alpha: float | Float[Array, ""],
    matrix: Float[Array, "n n"],
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    check_scalars(alpha=alpha)
    hessian, matrix = positive_semidefinite(hessian), floating(matrix, 2, "`matrix`")
    if matrix.shape != hessian.shape:
        raise ValueError(
            "`hessian` and `matrix` must be of one size; got shapes "
            f"{hessian.shape} and {matrix.shape}."
        )
    message = (
        "The bound holds for symmetric matrices only: pass (P + P.T) / 2, or measure rho "
        "of the transition itself."
    )
    return hessian, require(is_symmetric(matrix), matrix, message)


def _vector(x: Float[Array, " n"], name: str, n: int) -> Float[Array, " n"]:
    x = floating(x, 1, name)
    if len(x) != n:
        raise ValueError(
            f"{name} must have a number for each row of `hessian`, {n}; got shape "
            f"{x.shape}."
        )
    return x


def _extremes(matrix: Float[Array, "n n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    values = _values(matrix)
    return values[0], values[-1]


def _values(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    return eigh(matrix)[0]


def _shifted(
    alpha: float | Float[Array, ""], matrix: Float[Array, "n n"]
) -> Float[Array, "n n"]:
    return alpha * jnp.eye(len(matrix), dtype=matrix.dtype) + matrix


def _power(matrix: Float[Array, "n n"], exponent: float) -> Float[Array, "n n"]:
    values, vectors = eigh(matrix)
    return matmul(vectors * jnp.maximum(values, 0)[None] ** exponent, vectors.T)


# A is similar to I - M with M = R (alpha I + P) R, whose eigenvalues must lie in [0, 2].
def _exact(root: Float[Array, "n n"], shifted: Float[Array, "n n"]) -> Float[Array, ""]:
    similar = matmul(matmul(root, shifted), root)
    return 1 - jnp.max(jnp.abs(1 - _values(similar)))
