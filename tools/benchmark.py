"""Measures a model: ``python tools/benchmark.py MODEL [OPTIONS]`` (what ``segearth bench`` does)."""

from segearth.cli import app

if __name__ == "__main__":
    import sys

    app(["bench", *sys.argv[1:]])
