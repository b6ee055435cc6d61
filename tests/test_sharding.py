import os
import pathlib
import subprocess
import sys


def test_sharded_update_on_four_devices_equals_the_unsharded_one():
    script = pathlib.Path(__file__).parent / "sharded_update.py"
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, script]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "equal to unsharded" in done.stdout
