import atexit
import gc
import os
import pathlib
import shutil
import signal
import tempfile


# Most of the time is compilation. What one test file or process has compiled in this run
# no other compiles again: workers and the processes that tests start inherit these.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _programs = tempfile.mkdtemp(prefix="equistar-programs-")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Nor does anyone read where in the source each instruction comes from.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# And they need not be fast: XLA's older code generator, which compiles in half the time,
# makes them without optimisations, each as one piece, since workers keep all cores busy.
# `JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest` tests those that users get.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    _flags = os.environ.get("XLA_FLAGS", "")
    _older = "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters=1"
    if "--xla_backend_extra_options" not in _flags:
        _whole = "--xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{_flags} {_older} {_whole}".strip()

import jax
import pytest
from hypothesis import settings
from jaxtyping import config as jaxtyping_config, install_import_hook


jax.config.update("jax_platforms", "cpu")
# A plugin may have imported JAX before the variables were set.
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
_locations = int(os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"])
jax.config.update("jax_traceback_in_locations_limit", _locations)
jax.config.update(
    "jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Every shape and dtype annotation of the package is checked while the tests run.
install_import_hook("equistar", "beartype.beartype")

# Tracing makes many small objects that live on: looking through all of them again and
# again takes a tenth of the time.
gc.freeze()
gc.set_threshold(200_000, 20, 100)

# The same examples at every run: a failure is one that can be had again.
settings.register_profile("derandomised", derandomize=True, deadline=None)
settings.load_profile("derandomised")


# Each compiled program holds memory mappings, of which the kernel grants a process some
# 65,000: without this XLA crashes in the middle of a long session.
@pytest.fixture(scope="module", autouse=True)
def _mappings_for_programs_to_come():
    yield
    mappings = pathlib.Path("/proc/self/maps")
    if not mappings.exists() or len(mappings.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def as_users_call():
    """Without the checks of annotations, which would come before the library's own."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture
def hears_interrupts():
    """Background jobs of a shell ignore Ctrl-C, and so do the tests that run there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
