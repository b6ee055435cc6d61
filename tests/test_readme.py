"""The README's code runs, as it stands."""

import pathlib
import re
import subprocess
import sys


README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_code_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 3
    checks = "assert value < 1 and isinstance(mine.nominal.direction, SignMomentum)"
    code = "\n".join([*blocks, checks])
    # In a process of its own: the README's reader has none of the tests' settings.
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine.npz").is_file()
