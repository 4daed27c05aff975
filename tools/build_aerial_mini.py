"""Builds the embedded data set: python tools/build_aerial_mini.py SOURCES [--out DIR] [--seed N]."""

from __future__ import annotations

import argparse
import logging

from segearth.data.aerial_build import build, mix_table
from segearth.data.readers.aerial import PACKAGED, SPLITS, AerialMini


def main() -> None:
    """Builds, then prints the kinds of the fixed questions per split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", help="folder that holds the source folders")
    parser.add_argument("--out", default=PACKAGED, help="folder to write (default: the package's own)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the fixed questions")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(arguments.sources, arguments.out, arguments.seed)
    for split in SPLITS:
        data = AerialMini(arguments.out, split)
        print(f"{split}: {len(data)} images")
        for kind, number, share in mix_table(data):
            print(f"  {kind:10} {number:5} {share:6.1%}")


if __name__ == "__main__":
    main()
