"""To optax and back."""

import abc
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.nn as jnn
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._kinds import signature_of
from ._base import AbstractOptimizer
from ._frozen import frozen, FrozenArray
from ._scaled import Scaled
from ._trees import check_grads, check_params


def as_optax(
    optimizer: Any,
    learning_rate: ArrayLike | optax.Schedule = 1.0,
    weight_decay: ArrayLike | optax.Schedule = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer as an optax gradient transformation, for `optax.chain` and the like.

    $$p \\leftarrow p + \\eta_t (u_t - \\lambda_t p)$$ with $u_t$ the optimizer's
    update; see [`equistar.Scaled`][].

    !!! Example

        ```python
        star = eqs.STAR(key=jr.key(0))
        optim = optax.chain(optax.clip_by_global_norm(1.0), eqs.as_optax(star))
        opt_state = optim.init(params)
        updates, opt_state = optim.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        ```

    **Arguments:**

    - `optimizer`: any optimizer of this library.
    - `learning_rate`: a factor on the whole update, a number or an optax schedule. A
        meta-trained optimizer sets its own step sizes: 1 is its own choice.
    - `weight_decay`: decoupled weight decay as in `optax.adamw`, a number or an optax
        schedule; it is multiplied by the learning rate.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`, whose `init` and `update` may be jitted as
    they are (an optimizer's own `update` needs `eqx.filter_jit`). Its `update` needs
    `params`. It passes on `value=` and other extra arguments, which learned optimizers
    ignore.

    **Raises:**

    `ValueError` if `optimizer` is not one of this library's, or if the learning rate or the
    weight decay is a negative Python number, or not finite.
    """

    if not isinstance(optimizer, AbstractOptimizer):
        raise ValueError(
            f"`as_optax` takes an optimizer of this library, say `STAR(key=...)`; got "
            f"{optimizer!r:.80}."
        )
    scaled = Scaled(optimizer, learning_rate, weight_decay)

    # Functions, not methods: `jax.jit` needs a hash of what it compiles.
    def init(params: Any) -> Any:
        return scaled.init(params)

    # Optax's callers may leave `params` out; the optimizer then says what it needs.
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return scaled.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, update)


class AbstractHyperparameter(eqx.Module):
    """A hyperparameter of a hand-made optimizer, as `OptaxOptimizer` stores it."""

    @abc.abstractmethod
    def __call__(self) -> Any:
        """The value to pass to optax."""


class Positive(AbstractHyperparameter):
    """A positive number, $e^\\theta$: meta-learned through its logarithm $\\theta$."""

    log: Float[Array, "..."]

    def __init__(self, value: ArrayLike):
        """**Arguments:**

        - `value`: the initial value, positive; a number or an array.

        **Raises:**

        `ValueError` if it is not positive and finite. Inside of jit, values are not
        checked.
        """
        valid = lambda x: (0 < x) & (x < np.inf)
        self.log = jnp.log(_checked(value, valid, "positive and finite"))

    def __call__(self) -> Float[Array, "..."]:
        return jnp.exp(self.log)


class Decay(AbstractHyperparameter):
    """A number in (0, 1), $1 / (1 + e^{-\\theta})$: meta-learned through its logit."""

    logit: Float[Array, "..."]

    def __init__(self, value: ArrayLike):
        """**Arguments:**

        - `value`: the initial value, strictly between 0 and 1; a number or an array.

        **Raises:**

        `ValueError` if it is not between 0 and 1. Inside of jit, values are not checked.
        """
        value = _checked(value, lambda x: (0 < x) & (x < 1), "between 0 and 1")
        self.logit = jnp.log(value) - jnp.log1p(-value)

    def __call__(self) -> Float[Array, "..."]:
        return jnn.sigmoid(self.logit)


class Fixed(AbstractHyperparameter):
    """A value that meta-training leaves alone.

    **Attributes:**

    - `value`: a number, a flag, a schedule, an array or any other object.

    **Raises:**

    `ValueError` if it is an array that is traced.
    """

    value: Any = eqx.field(converter=frozen, static=True)

    def __call__(self) -> Any:
        return self.value.array if isinstance(self.value, FrozenArray) else self.value


# The names under which optax's optimizers take exponential decays.
_DECAYS = frozenset({"b1", "b2", "b3", "decay", "decay_rate", "momentum"})


class OptaxOptimizer(AbstractOptimizer):
    """A hand-made optimizer whose hyperparameters are meta-parameters.

    They are stored unconstrained, positive ones by their logarithm and decays by their
    logit, so that no perturbation makes them invalid.

    !!! Example

        ```python
        adam = eqs.OptaxOptimizer(optax.adam, learning_rate=1e-3, b1=0.9)
        ```

    `eqx.filter_vmap(lambda lr: eqs.OptaxOptimizer(optax.adam, learning_rate=lr))(lrs)`
    is a batch of Adams, one for each learning rate.
    """

    factory: Callable[..., optax.GradientTransformation] = eqx.field(static=True)
    hyperparameters: dict[str, AbstractHyperparameter]

    def __init__(
        self,
        factory: Callable[..., optax.GradientTransformation],
        **hyperparameters: Any,
    ):
        """**Arguments:**

        - `factory`: makes the transformation from its hyperparameters: `optax.adam`.
        - `hyperparameters`: keyword arguments of `factory`. Numbers become meta-learned
            leaves: `b1`, `b2`, `b3`, `decay`, `decay_rate` and `momentum` as
            [`equistar.Decay`][], all other positive ones as [`equistar.Positive`][].
            Zeros, integers, flags, schedules and other objects stay fixed. Pass a
            `Positive`, `Decay` or `Fixed` to choose for yourself.

        **Raises:**

        `ValueError` if `factory` cannot be called with these hyperparameters.
        """
        self.factory = factory
        self.hyperparameters = {
            name: _as_hyperparameter(name, value) for name, value in hyperparameters.items()
        }
        _check_factory(factory, hyperparameters)

    def init(self, params: PyTree) -> PyTree:
        check_params(params)
        with jax.numpy_dtype_promotion("standard"):
            return self._transformation().init(params)

    def update(
        self, grads: PyTree, state: PyTree, params: PyTree, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        check_grads(grads, params)
        transformation = optax.with_extra_args_support(self._transformation())
        # Optax's optimizers promote weak to strong types, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            _check_state(state, eqx.filter_eval_shape(transformation.init, params))
            updates, after = transformation.update(grads, state, params, **extra)
            # Hyperparameters that are arrays promote what has fewer bits.
            return _of_dtypes(updates, params), _of_dtypes(after, state)

    def _transformation(self) -> optax.GradientTransformation:
        values = {name: h() for name, h in self.hyperparameters.items()}
        return self.factory(**values)


def _of_dtypes(tree: PyTree, like: PyTree) -> PyTree:
    # Arrays of NumPy too.
    is_inexact = lambda y: hasattr(y, "dtype") and jnp.issubdtype(y.dtype, jnp.inexact)
    cast = lambda x, y: x.astype(y.dtype) if is_inexact(y) else x
    return jtu.tree_map(cast, tree, like)


def _check_state(state: PyTree, expected: PyTree) -> None:
    shapes = lambda tree: [jnp.shape(x) for x in jtu.tree_leaves(tree)]
    same = jtu.tree_structure(state) == jtu.tree_structure(expected)
    if not same or shapes(state) != shapes(expected):
        raise ValueError(
            "The optimizer's state was made by another optimizer, or for other parameters: "
            "call `init(params)` of this one with these."
        )


def _check_factory(factory: Any, names: Iterable[str]) -> None:
    if not callable(factory):
        raise ValueError(
            "`factory` must be the function that makes a transformation: pass `optax.adam, "
            f"learning_rate=...` and not `optax.adam(...)`; got {factory!r:.80}."
        )
    try:
        signature = signature_of(factory)
    except (TypeError, ValueError):
        return
    arguments = dict.fromkeys(names)
    try:
        # What it does not take is said before what is missing.
        signature.bind_partial(**arguments)
        signature.bind(**arguments)
    except TypeError as e:
        raise ValueError(
            f"`factory` cannot be called with these hyperparameters: {e}. It takes "
            f"{', '.join(signature.parameters)}."
        ) from None


def _as_hyperparameter(name: str, value: Any) -> AbstractHyperparameter:
    if isinstance(value, AbstractHyperparameter):
        return value
    is_float = isinstance(value, (float, np.floating)) and value != 0
    is_array = isinstance(value, (jax.Array, np.ndarray))
    if not is_float and not (is_array and jnp.issubdtype(value.dtype, jnp.floating)):
        return Fixed(value)
    try:
        return Decay(value) if name in _DECAYS else Positive(value)
    except ValueError as e:
        raise ValueError(f"`{name}` {e}") from None


def _checked(
    value: ArrayLike, valid: Callable[[np.ndarray], Any], description: str
) -> Float[Array, "..."]:
    array = jnp.asarray(value, jnp.zeros(()).dtype)
    # Inside a transformation the values are not known, and not checked.
    if not isinstance(array, jax.core.Tracer) and not np.all(valid(np.asarray(array))):
        raise ValueError(
            f"must be {description} to be meta-learned; got {value}. Wrap it in "
            "`equistar.Fixed` to pass it on as it is."
        )
    return array
