"""What tierkit costs, beside the bare work and in the same run. `python -m benchmarks` measures and prints."""
