"""The version, alone in a file so that building and `advmix info` need nothing else."""

__version__ = "0.1.0"
