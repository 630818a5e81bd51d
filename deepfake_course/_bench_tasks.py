"""Rows of `deepfake-course bench tasks`, gathered from one module a lesson. Written by hand."""
from . import _bench_augment

ROWS = [row for module in (_bench_augment,) for row in module.ROWS]
