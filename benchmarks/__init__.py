"""Benchmarks: speed and memory as ratios, measured side by side in one run. `scripts/bench NAME` runs one."""
