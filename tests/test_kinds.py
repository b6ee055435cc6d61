"""Parts are checked also in a module whose annotations are strings."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import pytest

import equistar as eqs
from equistar._kinds import check_parts


class Holder(eqx.Module):
    part: eqs.AbstractMagnitude
    number: int = 3

    def __check_init__(self):
        check_parts(self)


def test_a_part_of_another_kind_is_named_though_its_annotation_is_a_string():
    untyped: Any = Holder
    assert untyped(eqs.NoMagnitudeController()).number == 3
    with pytest.raises(ValueError, match=r"`part` of Holder must be an instance of Abst"):
        untyped(4)


def test_a_class_whose_annotations_are_known_to_its_function_only_is_made():
    class Kind(eqx.Module):
        pass

    class Local(eqx.Module):
        part: Kind

        def __check_init__(self):
            check_parts(self)

    assert isinstance(Local(Kind()).part, Kind)
