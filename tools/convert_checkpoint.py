"""Converts checkpoints: ``python tools/convert_checkpoint.py SRC... DST`` (what ``segearth zoo convert`` does)."""

from segearth.cli import app

if __name__ == "__main__":
    import sys

    app(["zoo", "convert", *sys.argv[1:]])
