"""The workloads of measure.py, a file for each family. `run` of each adds its results to a Bench."""
