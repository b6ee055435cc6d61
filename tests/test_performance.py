"""What the update costs in memory and code, and that the guide's table says so.

Times are measured by `benchmarks/`: a shared machine tells nothing about them here.
"""

import itertools
import math
import pathlib
import re
import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st

import equistar as eqs
from equistar._components import _means
from equistar._components._means import means, split


GUIDE = pathlib.Path(__file__).parent.parent / "docs" / "performance.md"


def _shapes(tree):
    return jtu.tree_map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _tree(*shapes):
    return [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]


def _zeros(tree):
    return jtu.tree_map(lambda x: jnp.zeros(x.shape, x.dtype), tree)


def _memory(program) -> Any:
    return program.memory_analysis()


def _compiled(step, optimizer, params, **options):
    state = jax.eval_shape(optimizer.init, params)
    lowered = jax.jit(step, donate_argnums=0).lower(state, params, params)
    return lowered.compile(compiler_options=options)


@pytest.mark.parametrize("make", [eqs.STAR, eqs.Blackbox], ids=["star", "blackbox"])
def test_no_input_of_the_network_is_ever_an_array_in_memory(make):
    # The inputs of a 512x512 tensor are 28 such arrays; scratch holds a part of one.
    optimizer = make(key=jr.key(0))
    largest = 512 * 512 * 4
    program = _compiled(
        lambda s, g, p: optimizer.update(g, s, p)[::-1],
        optimizer,
        _tree((512, 512), (512,)),
    )
    memory = _memory(program)
    assert memory.temp_size_in_bytes <= 0.5 * largest
    # The state is updated where it stands: beside it there are the updates only.
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    assert new <= 1.1 * largest


@pytest.mark.parametrize("make", [eqs.STAR, eqs.AdaptiveSTAR], ids=["star", "adaptive"])
def test_nor_are_the_rows_of_a_vector_which_are_of_its_size(make):
    optimizer = make(key=jr.key(0))
    step = lambda s, g, p: optimizer.update(g, s, p)[::-1]
    memory = _memory(_compiled(step, optimizer, _tree((2**17,))))
    assert memory.temp_size_in_bytes <= 0.5 * 2**17 * 4


@pytest.mark.parametrize("fast_math", [False, True])
def test_what_reads_old_accumulators_keeps_no_copy_of_them(fast_math):
    # Four copies, where the compiler is not told that they are read first. Nor is there an
    # array of what two passes both read: of R, of squares, of the gradient.
    optimizer = eqs.AdaptiveSTAR(key=jr.key(0))
    step = lambda s, g, p: optimizer.update(g, s, p)[::-1]
    fast = {"xla_cpu_enable_fast_math": fast_math}
    program = _compiled(step, optimizer, _tree((512, 512)), **fast)
    assert not re.findall(r"f32\[512,512\]\S* copy\(", str(program.as_text()))
    assert _memory(program).temp_size_in_bytes <= 0.5 * 512 * 512 * 4


@pytest.mark.parametrize("make, passes", [(eqs.STAR, 1), (eqs.AdaptiveSTAR, 2)])
def test_what_parts_want_the_means_of_is_one_pass_over_memory(make, passes):
    # AdaptiveSTAR's other one is of the old accumulators, for the step size.
    optimizer = make(key=jr.key(0))
    params = _tree((256, 128))
    state = jax.eval_shape(optimizer.init, params)
    text = (
        jax.jit(lambda g, s, p: optimizer.update(g, s, p))
        .lower(params, state, params)
        .as_text()
    )
    assert len(re.findall(r"stablehlo\.reduce\([^)]*\), \(", text)) == passes


def test_scratch_under_vmap_over_optimizers_is_below_the_largest_array():
    thetas = jax.vmap(lambda k: eqs.STAR(key=k))(jr.split(jr.key(0), 4))
    params = _tree((4, 128, 256))
    state = jax.eval_shape(jax.vmap(lambda o, p: o.init(p)), thetas, params)
    step = jax.vmap(lambda s, o, g, p: o.update(g, s, p)[::-1])
    program = jax.jit(step, donate_argnums=0).lower(state, thetas, params, params).compile()
    assert _memory(program).temp_size_in_bytes <= 0.5 * 4 * 128 * 256 * 4


@pytest.mark.parametrize("make, kernels", [(eqs.STAR, 45), (eqs.AdaptiveSTAR, 65)])
def test_no_mean_is_a_kernel_of_its_own_under_vmap_over_optimizers(make, kernels):
    # 71 and 95 with the means, of which each matrix has 16 and 22, one by one.
    thetas = jax.vmap(lambda k: make(key=k))(jr.split(jr.key(0), 4))
    params = _tree((4, 128, 256))
    state = jax.eval_shape(jax.vmap(lambda o, p: o.init(p)), thetas, params)
    step = jax.vmap(lambda s, o, g, p: o.update(g, s, p)[::-1])
    program = jax.jit(step).lower(state, thetas, params, params).compile()
    assert str(program.as_text()).count(" fusion(") <= kernels


def test_the_derivative_of_the_update_is_a_small_program():
    # Derived from the fused arithmetic itself it is 35,000 lines.
    param, count = _tree((64, 32))[0], jax.ShapeDtypeStruct((), jnp.int32)
    optimizer = eqs.STAR(key=jr.key(0))

    def total(theta, grad, param, count):
        state = theta.init_tensor(param)
        update = theta.step_tensor(
            grad, param, *theta.accumulate_tensor(grad, param, state, count), count
        )
        return jnp.sum(update**2)

    arguments = _shapes(optimizer), param, param, count
    program = jax.jit(jax.grad(total)).lower(*arguments).compile()
    assert len(str(program.as_text()).splitlines()) < 9000


def test_importing_loads_nothing_that_only_some_functions_need():
    heavy = (
        "matplotlib sklearn scipy.stats tensorflow_datasets tensorboardX tyro hypothesis"
    )
    code = (
        f"import sys, equistar; print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def _nominal(direction):
    return eqs.LearnedOptimizer(nominal=eqs.NominalTerm(direction))


STATES = {
    "optax.sgd": optax.sgd(0.1),
    "optax.adam": optax.adam(0.1),
    "STAR": eqs.STAR(key=jr.key(0)),
    "Blackbox": eqs.Blackbox(key=jr.key(0)),
    "HyperparamController": eqs.HyperparamController(key=jr.key(0)),
    "nominal term alone, AdamAggMo": _nominal(eqs.AdamAggMoDirection()),
    "nominal term alone, AggMo": _nominal(eqs.AggMoDirection()),
    "nominal term alone, gradient": _nominal(eqs.GradientDirection()),
}


def _in_bfloat16(optimizer):
    bank = optimizer.accumulators
    bank = {**bank, "momentum": eqs.InBFloat16(bank["momentum"])}
    return eqx.tree_at(lambda o: o.accumulators, optimizer, bank)


STATES["STAR with momenta in bfloat16"] = _in_bfloat16(STATES["STAR"])


def _bytes_a_parameter(optimizer, shape, dtype=jnp.float32):
    state = jax.eval_shape(optimizer.init, jax.ShapeDtypeStruct(shape, dtype))
    arrays = [x for x in jtu.tree_leaves(state) if x.ndim]
    return sum(x.size * x.dtype.itemsize for x in arrays) / jnp.zeros(shape).size


def test_bytes_of_state_in_the_guide_are_those_of_the_states():
    row = r"^\| ([^|]+?) \| ([\d.]+) \| ([\d.]+) \|$"
    section = GUIDE.read_text().split("## Memory")[1].split("\n## ")[0]
    table = {n: (m, v) for n, m, v in re.findall(row, section, re.MULTILINE)}
    assert table.keys() == STATES.keys()
    for name, (matrix, vector) in table.items():
        optimizer = STATES[name]
        # Row and column factors of a 1024x1024 matrix are 24 / 1024 bytes a parameter.
        assert (
            f"{_bytes_a_parameter(optimizer, (1024, 1024)):.2f}" == f"{float(matrix):.2f}"
        )
        assert _bytes_a_parameter(optimizer, (1024,)) == float(vector)


LENGTHS = [1, 2, 3, 10, 64, 127, 130]


def _split(shape, devices=8):
    return split(shape, devices, (1,) * len(shape))


@given(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=4).map(tuple))
def test_blocks_of_the_reduction_are_made_of_stretches_of_memory(shape):
    axes = _split(shape)
    whole = [(axis, axis.parts[0]) for axis in axes]
    first = np.ix_(*(range(part.block) for _, part in whole))
    places = np.arange(math.prod(shape)).reshape(shape)[first].ravel()
    starts = [0, *np.nonzero(np.diff(places) != 1)[0] + 1, places.size]
    shortest = min(end - start for start, end in itertools.pairwise(starts))
    assert shortest >= 64 or math.prod(shape) <= 8192


@given(st.lists(st.integers(0, 3000), max_size=3).map(tuple))
def test_parts_of_an_axis_are_all_of_it_in_blocks_that_are_not_long(shape):
    for axis, n in zip(_split(shape), shape, strict=True):
        assert axis.shares * axis.length == n
        ends = [0, *(part.stop for part in axis.parts)]
        assert [part.start for part in axis.parts] == ends[:-1]
        assert ends[-1] == axis.length
        assert all((part.stop - part.start) % part.block == 0 for part in axis.parts)
    largest = math.prod(max(p.block for p in axis.parts) for axis in _split(shape))
    assert largest <= 8192


@pytest.mark.parametrize("shape", [(), (1000003,), (2 * 59141,), (4099, 513), (10007, 3)])
def test_means_of_any_length_are_accurate(shape):
    # In one sum, each element after the other, the second is 1.4e-2 off.
    for xs in np.full(shape, 0.1), np.random.default_rng(0).normal(size=shape):
        xs = np.float32(xs)
        found = jax.jit(lambda x: means((x, x * x)))(xs)
        expected = [np.mean(np.float64(x)) for x in (xs, xs * xs)]
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(), (7,), (130, 64), (3, 5, 1000)])
def test_single_sums_are_those_in_blocks(shape):
    xs = [jr.normal(jr.key(i), shape) for i in range(3)]
    apart, blocks = _means._sums_apart(*xs), _means._sums_in_blocks(*xs)
    np.testing.assert_allclose(apart, blocks, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "platform, several", [("cpu", True), ("cuda", True), ("tpu", False)]
)
def test_no_reduction_of_several_large_arrays_is_lowered_for_tpu(platform, several):
    # Compiled for a TPU v5e one wrote all its operands to memory, 70 bytes a parameter.
    optimizer = eqs.STAR(key=jr.key(0))
    params = _tree((128, 65))
    step = jax.jit(lambda s, g, p: optimizer.update(g, s, p))
    exported = jax.export.export(step, platforms=[platform])
    text = exported(_shapes(optimizer.init(_zeros(params))), params, params).mlir_module()
    assert bool(re.search(r"stablehlo\.reduce\([^)]*\), \(", text)) == several


@pytest.mark.parametrize(
    "shape, devices",
    [
        ((256, 128), (8, 2)),
        ((256, 384), (8, 4)),
        ((256, 512), (8, 8)),
        ((256, 768), (8, 8)),
        ((256, 1000), (8, 8)),
        ((64, 32), (8, 8)),
        ((128, 10), (8, 2)),
        ((4096,), (8,)),
    ],
)
def test_devices_along_an_axis_have_whole_blocks(shape, devices):
    assert all(a.shares % n == 0 for a, n in zip(_split(shape), devices, strict=True))


def test_as_many_devices_as_a_known_mesh_has():
    assert [axis.shares for axis in _split((4096, 4096), 64)] == [64, 64]
    assert [axis.shares for axis in split((6, 4096), 4, (3, 1))] == [3, 4]
