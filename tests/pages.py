"""Run by test_readme.py: runs the code of one page after the other, as it comes in."""

import contextlib
import gc
import io
import json
import os
import sys
import traceback
import types


# As in conftest.py: less time for the garbage collector.
gc.set_threshold(200_000, 20, 100)

for line in sys.stdin:
    page = json.loads(line)
    os.chdir(page["folder"])
    # Its names are its own, and those of a script.
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(page["code"], page["name"], "exec"), vars(module))
        except BaseException:
            error = traceback.format_exc()
    print(json.dumps({"printed": printed.getvalue(), "error": error}), flush=True)
