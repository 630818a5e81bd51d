"""Rows of `deepfake-course bench tasks`, gathered from one module a lesson. Written by hand."""
from . import _bench_augment, _bench_fit, _bench_frozen, _bench_grid

ROWS = [row for module in (_bench_grid, _bench_frozen, _bench_fit, _bench_augment) for row in module.ROWS]
