"""Trains an experiment: ``python tools/train.py CONFIG [key=value …]`` (what ``segearth train`` does)."""

from segearth.cli import app

if __name__ == "__main__":
    import sys

    # DeepSpeed's launcher adds --local_rank; the rank is read from the environment.
    app(["train", *(a for a in sys.argv[1:] if not a.startswith("--local_rank"))])
