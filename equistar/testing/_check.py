"""Properties tried on an optimizer, in one line."""

import re
from collections.abc import Callable, Iterable, Sequence

from .._kinds import check_kind
from ._base import AbstractProperty, as_optimizer, Optimizer
from ._properties import (
    IgnoresLeafOrder,
    JitEqualsEager,
    KeepsStructure,
    NaNStaysInItsLeaf,
    RestsAtZeroGradient,
    ShardedEqualsUnsharded,
    StaysFinite,
    VmapEqualsLoop,
    WideAccumulators,
)


EXPECTED: tuple[AbstractProperty, ...] = (
    KeepsStructure(),
    StaysFinite(),
    WideAccumulators(),
    RestsAtZeroGradient(),
    IgnoresLeafOrder(),
    JitEqualsEager(),
    VmapEqualsLoop(),
    ShardedEqualsUnsharded(),
    NaNStaysInItsLeaf(),
)
"""The properties that every optimizer should have; the others are promises of some."""


def check(optimizer: Optimizer, properties: Sequence[AbstractProperty] = EXPECTED) -> None:
    """Tests properties of an optimizer, one after the other.

    **Arguments:**

    - `optimizer`: of this library, or an optax `GradientTransformation`.
    - `properties`: by default `EXPECTED`.

    **Raises:**

    `AssertionError` that names the property and what broke it; `ValueError` if `optimizer`
    is none or `properties` is not a list of properties. Errors of the optimizer itself are
    raised with a note that names the property.
    """
    wanted = "a list of properties, say `[KeepsStructure()]`"
    check_kind(properties, Iterable, "`properties`", wanted)
    for prop in _checked(properties):
        _try(prop, optimizer)


def _try(prop: AbstractProperty, optimizer: Optimizer) -> None:
    try:
        prop(as_optimizer(optimizer))
    except AssertionError:
        raise
    except Exception as e:
        e.add_note(f"The optimizer raised this while {type(prop).__name__} was tried.")
        raise


def _checked(properties: Iterable[AbstractProperty]) -> list[AbstractProperty]:
    properties = list(properties)
    for prop in properties:
        check_kind(prop, AbstractProperty, "A property", "one, say `KeepsStructure()`")
    return properties


def optimizer_tests(
    optimizer: Optimizer,
    *more: AbstractProperty,
    skip: Sequence[type[AbstractProperty]] = (),
) -> Callable[..., None]:
    """Tests of an optimizer, for a pytest file, in one line.

    !!! Example

        ```python
        import equistar.testing

        test_mine = equistar.testing.optimizer_tests(mine)
        ```

    gives `test_mine[keeps_structure]`, `test_mine[stays_finite]`, ...

    **Arguments:**

    - `optimizer`: of this library, or an optax `GradientTransformation`.
    - `more`: properties that it promises in addition to `EXPECTED`, say
        `BoundedUpdate(0.1)`. A property of a class that is in `EXPECTED` replaces that one,
        say `RestsAtZeroGradient(1e-8)`.
    - `skip`: classes of properties that it does not have.

    **Returns:**

    A test function with a parameter for each property.

    **Raises:**

    `ValueError` if `optimizer` is none, `more` are not properties, or `skip` are not
    classes of them.
    """
    import pytest

    as_optimizer(optimizer)

    skip = list(skip) if isinstance(skip, Iterable) else [skip]
    if not all(isinstance(k, type) and issubclass(k, AbstractProperty) for k in skip):
        raise ValueError(
            "`skip` must be a list of classes, say `[WideAccumulators]` without "
            f"parentheses; got {skip}."
        )
    without = (*skip, *(type(prop) for prop in _checked(more)))
    expected = [prop for prop in EXPECTED if not isinstance(prop, without)]
    properties = [*expected, *more]

    @pytest.mark.parametrize("prop", properties, ids=[_id(type(p)) for p in properties])
    def test(prop: AbstractProperty) -> None:
        _try(prop, optimizer)

    return test


# NaNStaysInItsLeaf is nan_stays_in_its_leaf: NaN is one word.
def _id(kind: type[AbstractProperty]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.replace("NaN", "Nan")).lower()
