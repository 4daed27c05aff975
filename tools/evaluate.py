"""Scores an experiment's model: ``python tools/evaluate.py CONFIG [key=value …] [--split test]``."""

from segearth.cli import app

if __name__ == "__main__":
    import sys

    app(["eval", *(a for a in sys.argv[1:] if not a.startswith("--local_rank"))])
