"""One device, several, and several processes give the same, to rounding.

Devices are chosen when JAX starts, so each case is a process of its own.
"""

import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import equistar as eqs
from equistar._cli import _processes
from equistar._cli._output import CommandError

from .helpers import LinearWalk, on_devices


HERE = pathlib.Path(__file__).parent


def _start(*command, devices=1, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=on_devices(devices) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process, seconds=550):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err[-3000:]
    return out


def _free_address():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return f"localhost:{s.getsockname()[1]}"


def test_sharded_update_on_four_devices_equals_the_unsharded_one():
    out = _finish(_start(HERE / "sharded_update.py", devices=4))
    assert "equal to unsharded" in out


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    path = tmp_path_factory.mktemp("sharding") / "four.npz"
    out = _finish(_start(HERE / "sharded_estimators.py", path, devices=4))
    assert "equal to one device" in out
    with np.load(path) as file:
        return dict(file)


def test_every_estimator_on_four_devices_equals_one_device(four_devices):
    # Compared in the process itself; here: 8 particles were spread over 4 devices.
    shares = {k: v for k, v in four_devices.items() if k.endswith("device")}
    assert len(shares) == 8
    assert all(set(share) <= {2} for share in shares.values())
    assert sum(len(share) for share in shares.values()) == 6


def test_every_estimator_on_two_processes_equals_one_process(four_devices, tmp_path):
    path, address = tmp_path / "two.npz", _free_address()
    run = lambda i: _start(HERE / "sharded_estimators.py", path, address, 2, i, devices=2)
    processes = [run(0), run(1)]
    for process in processes:
        assert "done" in _finish(process)
    with np.load(path) as two:
        for name, value in four_devices.items():
            np.testing.assert_allclose(two[name], value, rtol=1e-5, err_msg=name)


def _two_commands(*command):
    address = _free_address()
    names = dict(zip(_processes.VARIABLES, (address, "2"), strict=False))
    run = lambda i: _start("-m", "equistar", *command, JAX_PROCESS_ID=str(i), **names)
    return run(0), run(1)


def test_what_the_first_process_refuses_ends_the_others_in_a_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    command = f"meta-train --distributed --steps 2 --output {tmp_path}".split()
    processes = _two_commands(*command)
    try:
        # Well before a process that is silent counts as dead.
        errors = [p.communicate(timeout=120)[1] for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [2, 1]
    sentences = [e.splitlines()[-1] for e in errors]
    assert "is not empty" in sentences[0]
    assert "Another process of the run has failed" in sentences[1]
    assert not any("Traceback" in e for e in errors)


def test_survivors_of_a_dead_process_keep_what_was_trained(tmp_path):
    folder = tmp_path / "run"
    sizes = "--optimizer hyperparam --window 5 --length 50 --pairs 4 --save-every 10"
    command = f"meta-train --distributed -n 1000000 {sizes}".split()
    first, second = _two_commands(*command, "--output", folder)
    try:
        deadline = time.monotonic() + 300
        while not (folder / "weights.npz").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.2)
        second.kill()
        out, err = first.communicate(timeout=_processes.STOPPED_WITHIN)
    finally:
        first.kill()
        second.kill()
    assert first.returncode == 1
    assert "failed after" in out and "rescued-by-process-0.npz" in out
    assert "Traceback" not in err
    # Both files are whole, and the survivor's is the later one.
    steps = {
        p.name: eqs.load_header(p)["provenance"]["meta_steps"] for p in folder.glob("*.npz")
    }
    assert set(steps) == {"weights.npz", "rescued-by-process-0.npz"}
    assert steps["rescued-by-process-0.npz"] >= steps["weights.npz"] >= 10
    for path in folder.glob("*.npz"):
        assert isinstance(eqs.load(path), eqs.HyperparamController)


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"JAX_NUM_PROCESSES": "2"}, "missing: JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"),
        (dict(zip(_processes.VARIABLES, ("a:1", "2", "2"), strict=True)), "got 2 of 2"),
        (dict(zip(_processes.VARIABLES, ("a:1", "two", "0"), strict=True)), "0 of two"),
    ],
)
def test_wrong_coordinator_variables_are_refused(environment, message):
    with pytest.raises(CommandError, match=message):
        _processes._settings(environment)


def test_particles_that_do_not_divide_over_devices_are_refused():
    unroll, estimator = LinearWalk(0.0), eqs.PES(pairs=8)
    theta, key = jax.numpy.zeros(2), jax.random.key(0)
    begin = lambda key: estimator.init(unroll, theta, key=key)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((3,), ("particles",))):
        with pytest.raises(ValueError, match="choose a multiple of 3"):
            jax.eval_shape(begin, key)


def test_importing_the_library_starts_no_device():
    # `jax.distributed.initialize` must come before any computation.
    code = (
        "import equistar, jax._src.xla_bridge as b; assert not b.backends_are_initialized()"
    )
    _finish(_start("-c", code))
