"""Expected numerical outcomes."""

import equinox as eqx


class RESULTS(eqx.Enumeration):
    """How a run ended; `RESULTS[result]` is the message."""

    successful = ""
    no_meta_gradient = (
        "Too many meta-steps had a non-finite meta-gradient and were skipped. "
        "Use PES instead of back-propagation, a shorter window, or a smaller sigma."
    )
    interrupted = "The run was interrupted; what it had trained so far is kept."
    process_lost = (
        "A device or another process of the run failed, or ran out of memory; what had "
        "been trained until then is kept."
    )
