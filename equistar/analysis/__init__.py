"""Stability, step sizes and meta-gradients, analysed: closed forms, bounds, spectra."""
