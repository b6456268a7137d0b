"""Side-by-side benchmarks against the baselines."""
