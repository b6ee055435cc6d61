"""The code of the README and of the guides runs, as it stands."""

import json
import pathlib
import re
import subprocess
import sys

import pytest


ROOT = pathlib.Path(__file__).parents[1]
# Pages with code, how many blocks of it, and what must hold after them.
PAGES = {
    "README.md": (
        3,
        "assert value < 1 and isinstance(mine.nominal.direction, SignMomentum)\n"
        "import pathlib; assert pathlib.Path('mine.npz').is_file()",
    ),
    "docs/meta_training.md": (
        1,
        "assert len(result.history.meta_loss) == 3 and result.theta != star\n"
        "assert eqx.tree_equal(result.theta.accumulators, star.accumulators)\n"
        "import pathlib; assert len(list(pathlib.Path('my-mixture').glob('best-*'))) == 1",
    ),
    "docs/compose.md": (10, "assert data.classes == 2 and len(data.splits) == 4"),
    "docs/weights.md": (
        2,
        "assert isinstance(again, eqs.LearnedOptimizer) and len(eqs.PRETRAINED) == 5",
    ),
    "docs/training_loop.md": (10, "assert bool(jnp.isfinite(loss)); cheaper.init(params)"),
    "docs/estimators.md": (
        3,
        "from equistar.analysis import Health\n"
        "assert health.verdict == Health.HEALTHY, str(health)\n"
        "scores = {k: r.bias_score for k, r in comparison.reports.items()}\n"
        "assert scores['PES'] < 4.5 and scores['NRES'] < 4.5, scores\n"
        "assert len(result.history.meta_loss) == 5",
    ),
    "docs/evaluation.md": (
        1,
        "import pathlib; assert pathlib.Path('my-evaluation/report.md').is_file()\n"
        "assert not evaluation.failures and len(evaluation.results.runs) == 3",
    ),
    "docs/tasks.md": (
        4,
        "assert len(result.history.meta_loss) == 5 and len(mixture.feeds) == 4\n"
        "assert feed.at(4).task.dataset[eqs.tasks.Split.TRAIN].inputs.shape[0] == 200",
    ),
    "docs/testing.md": (3, "equistar.testing.check(mine)"),
    "docs/stability.md": (1, "assert abs(spectrum.radius - 1.4) < 1e-5"),
    "docs/step_size.md": (
        6,
        "from equistar.analysis import Health\n"
        "assert naive.verdict == Health.SILENTLY_ZERO and naive.turns_at == 30\n"
        "assert healthy.verdict == Health.HEALTHY",
    ),
}


# Not this process, since a page's reader has none of the tests' settings but that programs
# are compiled quickly; one for all pages, since each takes seconds to start.
@pytest.fixture(scope="module")
def run_page():
    run = [sys.executable, str(ROOT / "tests" / "pages.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(run, text=True, stdin=pipe, stdout=pipe) as reader:
        assert reader.stdin and reader.stdout
        to, answers = reader.stdin, reader.stdout

        def run_page(name, code, folder):
            page = {"name": name, "code": code, "folder": str(folder)}
            to.write(json.dumps(page) + "\n")
            to.flush()
            return json.loads(answers.readline())

        yield run_page


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path, run_page):
    number, checks = PAGES[page]
    text = (ROOT / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == number
    code = "\n".join([*blocks, checks])
    done = run_page(page, code, tmp_path)
    assert not done["error"], done["error"]
    # What a page quotes below a block is what the block prints.
    for quoted in re.findall(r"```python\n[^`]*```\n\n```text\n(.*?)```", text, re.DOTALL):
        assert _lines(quoted) in _lines(done["printed"])


def _lines(text):
    return "\n".join(line.strip() for line in text.strip().splitlines())
