"""Writes the words that training draws beside weights that were trained before runs kept them.

    python tools/known_words.py segearth/zoo/weights/segearth_tiny

Questions are built of the training images again and again, as training does; of the images only annotations are read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from segearth.data.questions.annotation import AnnotatedDataset
from segearth.data.questions.builder import BuilderSettings, ExpressionBuilder
from segearth.data.registry import build_dataset
from segearth.models.pretrained import CONFIG_FILE, KNOWN_WORDS
from segearth.text.known_words import FILE, KnownWords, words_of
from segearth.utils.files import write_text
from segearth.utils.seeds import rng_for

ROUNDS = 20
DRAWN = {"length": 250, "size": 256}  # as in the packaged weights' fifth stage; the others drew the same kinds


def main() -> None:
    """Draws questions and writes the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the weights")
    folder = parser.parse_args().folder
    if (folder / FILE).exists():
        parser.error(f"{folder / FILE} is there already; delete it first if it is wrong")
    datasets = [build_dataset("aerial_mini", None, "train"), build_dataset("synthetic", None, "train", **DRAWN)]
    words: set[str] = set()
    for dataset in datasets:
        assert isinstance(dataset, AnnotatedDataset)
        builder = ExpressionBuilder(dataset.table, BuilderSettings(max_questions=16))
        for turn in range(ROUNDS):
            for index in range(len(dataset)):
                for question in builder.build(dataset.annotated(index), rng_for(0, turn, index)):
                    words.update(words_of(question.text))
    KnownWords(words).save(folder)
    path = folder / CONFIG_FILE
    facts = json.loads(path.read_text(encoding="utf-8")) | {KNOWN_WORDS: len(words)}
    write_text(path, json.dumps(facts, indent=2) + "\n")
    print(f"{folder / FILE}: {len(words)} words")


if __name__ == "__main__":
    main()
