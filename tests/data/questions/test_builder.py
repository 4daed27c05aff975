from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from village import block, village

from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.builder import DEFAULT_MIX, BuilderSettings, ExpressionBuilder
from segearth.data.questions.claims import Claim, Margins, Referents, Verifier, opposites
from segearth.data.questions.held_out import is_held_out
from segearth.data.questions.propose import PROPOSERS
from segearth.data.questions.table import load_table
from segearth.data.questions.wording import answer_text
from segearth.data.readers.drawing import draw_image
from segearth.errors import ConfigError

TABLE = load_table()
RICH = draw_image(np.random.default_rng(1), 192)[1]


def asked(annotated: AnnotatedImage, seed: int = 0, **settings: object) -> list:
    return ExpressionBuilder(TABLE, BuilderSettings(**settings)).expressions(annotated, np.random.default_rng(seed))


def test_the_first_question_of_an_image_follows_the_mix() -> None:
    """Kinds are drawn by their shares: 3 to 1 gives three quarters, not a half and not all."""
    mix = {"position": 3.0, "absent": 1.0}
    first = Counter(asked(village(), seed, max_questions=1, mix=mix)[0].kind for seed in range(400))
    assert 265 <= first["position"] <= 335  # 300 expected, 4 standard deviations either way
    assert sum(first.values()) == 400


def test_over_many_images_each_kind_has_its_share() -> None:
    mix = {"class": 0.2, "position": 0.5, "absent": 0.3}
    kinds: Counter[str] = Counter()
    for seed in range(150):
        kinds.update(e.kind for e in asked(RICH, seed, max_questions=4, mix=mix, paraphrases=8))
    assert sum(kinds.values()) == 600
    assert kinds["position"] == pytest.approx(300, abs=50)
    assert kinds["absent"] == pytest.approx(180, abs=45)


def test_where_nothing_is_there_one_absence_is_asked() -> None:
    empty = AnnotatedImage(100, 100, [], frozenset(TABLE.classes))
    for seed in range(20):
        assert [e.kind for e in asked(empty, seed, max_questions=8)] == ["absent"]
    assert asked(empty, max_questions=0) == []
    assert asked(empty, mix={"class": 1.0}) == asked(empty, mix={"class": 1.0, "absent": 0.0}) == []


def test_absences_keep_their_share_in_a_poor_image() -> None:
    """A class and its wordings are soon asked; the places left over are not filled up with what is not there."""
    poor = replace(village(), objects=[item for item in village().objects if item.category == "road"])
    kinds: Counter[str] = Counter()
    for seed in range(300):
        kinds.update(e.kind for e in asked(poor, seed, max_questions=20, mix={"class": 0.75, "absent": 0.25}))
    assert kinds["class"] <= 600  # two wordings at most, although twenty questions were wanted
    assert kinds["absent"] == pytest.approx(kinds["class"] / 3, abs=40)


@pytest.mark.parametrize("most", [4, 6, 8])
def test_absences_keep_their_share_whether_an_image_is_nearly_rich_enough_or_not(most: int) -> None:
    """An image with six other questions, asked for fewer, as many, and a few more."""
    annotated = replace(
        village(), objects=[item for item in village().objects if item.category in ("road", "building")]
    )
    mix = {"class": 0.7, "absent": 0.3}
    kinds: Counter[str] = Counter()
    for seed in range(400):
        kinds.update(e.kind for e in asked(annotated, seed, max_questions=most, mix=mix, paraphrases=3))
    assert kinds["absent"] / kinds.total() == pytest.approx(0.3, abs=0.03)


def test_needs_are_unmet_as_often_as_classes_are_missing() -> None:
    """Were most needs asked of an image unmet, "which …?" alone would tell that there is nothing."""
    poor = replace(village(), objects=[item for item in village().objects if item.category == "road"])
    there: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for seed in range(300):
        for e in asked(poor, seed, mix={"class": 0.5, "reasoning": 0.2, "absent": 0.3}):
            (missing if e.kind == "absent" else there)[e.task] += 1
    assert min(there.values()) > 100
    shares = {task: missing[task] / (missing[task] + there[task]) for task in there}
    assert shares == {task: pytest.approx(0.3, abs=0.08) for task in ("referring", "reasoning")}


def test_a_question_about_a_place_is_followed_by_its_opposite() -> None:
    """The same words but one, and another target: what tells a model that listens from one that does not."""
    mix = {"position": 0.5, "size": 0.3, "neighbour": 0.2}
    plain, twinned = (
        [asked(RICH, seed, mix=mix, twins=share) for seed in range(40)] for share in (0.0, 1.0)
    )  # fmt: skip
    verifier = Verifier(RICH, TABLE, Margins())
    for found in twinned:
        claims = [e.claim for e in found]
        assert len(found) == len({e.text for e in found}) <= 8
        assert all(e.referents == verifier.referents(e.claim) and e.referents is not None for e in found)
        for e in found[:-1]:  # the last one's opposite may find no room
            others = [verifier.referents(twin) for _, twin in opposites(e.claim)]
            if any(other is not None and other != e.referents for other in others):
                assert any(twin in claims for _, twin in opposites(e.claim)), e.text

    def pairs(questions: list) -> int:
        claims = [e.claim for e in questions]
        return sum(twin in claims for claim in claims for _, twin in opposites(claim))

    for questions in twinned:  # two wordings of a meaning at most, whoever proposed it
        assert max(Counter((e.claim, e.kind) for e in questions).values()) <= 2
    assert sum(map(pairs, twinned)) > 1.5 * sum(map(pairs, plain)) > 0
    assert plain == [asked(RICH, seed, mix=mix) for seed in range(40)]


def test_opposites_have_mostly_the_same_words_but_one_and_the_same_kind() -> None:
    """Worded anew, they would differ in their opening and their nouns too, and the pair would show no single word."""
    mix = {"position": 0.6, "size": 0.4}
    alike = []
    for seed in range(30):
        found = asked(RICH, seed, mix=mix, twins=1.0, paraphrases=1)
        assert {e.kind for e in found} <= set(mix)
        for one, other in pairwise(found):
            if other.claim in [twin for _, twin in opposites(one.claim)]:
                words = one.text.split(), other.text.split()
                same_length = len(words[0]) == len(words[1])
                alike.append(same_length and sum(a != b for a, b in zip(*words, strict=True)) == 1)
                assert one.kind == other.kind
    assert len(alike) > 50 and np.mean(alike) > 0.6  # 0.78; of pairs worded independently it is 0.05


def test_an_opposite_takes_the_place_of_another_question_and_not_of_an_absence() -> None:
    mix, counts = {"position": 0.5, "size": 0.2, "absent": 0.3}, Counter()
    for seed in range(150):
        found = asked(RICH, seed, max_questions=5, mix=mix, twins=1.0)
        assert len(found) == 5
        counts.update(e.kind for e in found)
    assert counts["absent"] / counts.total() == pytest.approx(0.3, abs=0.04)


def test_opposites_that_are_held_out_are_not_asked_unless_they_are_wanted() -> None:
    """The table keeps concrete roofs from the left half: a question about those in the right half gets no opposite."""
    concrete = {"roof:material": "concrete"}
    boxes = ((5, 5, 35, 25), (70, 5, 95, 25))
    annotated = replace(
        village(), objects=[block(k, "building", *box, attributes=concrete) for k, box in enumerate(boxes)]
    )
    settings = {"max_questions": 20, "mix": {"attribute": 1.0}, "twins": 1.0}
    kept = {e.claim for seed in range(30) for e in asked(annotated, seed, **settings)}
    right = Claim(("building",), region="right half", attribute=("roof:material", "concrete"))
    assert right in kept and not any(is_held_out(claim, TABLE) for claim in kept)
    assert replace(right, region="left half") in {e.claim for e in asked(annotated, **settings, held_out=True)}


def test_a_claim_that_is_held_out_does_not_end_its_kind() -> None:
    mix = {"attribute": 1.0}
    for seed in range(20):  # they are proposed in random order
        found = {e.claim for e in asked(village(), seed, max_questions=60, mix=mix)}
        everything = {e.claim for e in asked(village(), seed, max_questions=60, mix=mix, held_out=True)}
        assert found == {claim for claim in everything if not is_held_out(claim, TABLE)} != everything


@pytest.mark.parametrize("kind", ["class", "position", "size", "attribute", "absent"])
def test_a_meaning_comes_once_a_round(kind: str) -> None:
    """Some are proposed twice, to come earlier; were each of these asked, few would fill an image."""
    builder, verifier = ExpressionBuilder(TABLE, BuilderSettings(paraphrases=3)), Verifier(village(), TABLE, Margins())
    claims = [claim for claim, _ in builder._stream(kind, verifier, np.random.default_rng(0))]
    third = len(claims) // 3
    rounds = [claims[:third], claims[third : 2 * third], claims[2 * third :]]
    assert all(set(own) == set(claims) and len(own) == len(set(own)) > 0 for own in rounds)


def test_absences_are_needs_as_often_as_what_is_there() -> None:
    empty, builder = AnnotatedImage(100, 100, [], frozenset(TABLE.classes)), ExpressionBuilder(TABLE)
    (need,) = asked(RICH, max_questions=1, mix={"reasoning": 1.0})
    (named,) = asked(RICH, max_questions=1, mix={"class": 1.0})
    for there, share in (([need] * 4 + [named], 0.8), ([named], 0.0), ([], 0.0)):
        tasks: Counter[str] = Counter()
        for seed in range(60):
            rng = np.random.default_rng(seed)
            found = builder._absent_expressions(Verifier(empty, TABLE, Margins()), there, 5, rng)
            assert len({e.text for e in found}) == len(found) == 5
            tasks.update(e.task for e in found)
        assert tasks["reasoning"] / tasks.total() == pytest.approx(share, abs=0.08 if share else 0)


def test_only_absences_are_asked_where_only_they_have_a_share() -> None:
    assert [e.kind for e in asked(RICH, max_questions=4, mix={"absent": 1.0})] == ["absent"] * 4


def test_a_kind_is_capped_where_others_run_out() -> None:
    """Two and a half times its share: of twenty questions of an image with one road, 20 x 0.1 x 2.5 about places."""
    road = replace(village(), objects=[item for item in village().objects if item.category == "road"])
    kinds = Counter(e.kind for e in asked(road, max_questions=20, mix={"class": 0.9, "position": 0.1}, paraphrases=9))
    assert kinds["position"] == 5


def test_a_kind_of_a_tiny_share_is_asked_once_at_most() -> None:
    mix, counts = {"class": 0.99, "position": 0.01}, []
    for seed in range(30):
        counts.append(sum(e.kind == "position" for e in asked(village(), seed, max_questions=8, mix=mix)))
    assert set(counts) == {1}  # the classes of the village give six


def test_no_more_than_asked_for_and_a_kind_of_no_share_is_not_asked() -> None:
    assert len(asked(RICH, max_questions=5)) == 5
    assert asked(RICH, max_questions=0) == []
    only = asked(village(), mix={"class": 1.0, "absent": 0.0}, max_questions=50)
    assert {e.kind for e in only} == {"class"}
    assert {e.kind for e in asked(village(), mix={"class": 1.0, "position": 0.0}, max_questions=50)} == {"class"}
    assert asked(village(), mix={}) == asked(village(), mix={"class": 0.0, "absent": 0.0}) == []


def test_nothing_known_nothing_asked() -> None:
    assert asked(AnnotatedImage(64, 64, [])) == []


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_meaning_is_asked_again_only_in_other_words(times: int) -> None:
    most = 0
    for seed in range(30):
        found = asked(village(), seed, max_questions=60, paraphrases=times, mix={"class": 1.0, "size": 1.0})
        texts = [e.text for e in found]
        assert len(set(texts)) == len(texts)
        per_meaning = Counter((e.claim, e.kind) for e in found)
        assert max(per_meaning.values()) <= times
        most = max(most, *per_meaning.values())
    assert most == times


def test_same_generator_same_questions() -> None:
    builder = ExpressionBuilder(TABLE, BuilderSettings(max_questions=30))
    first, second = (builder.build(RICH, np.random.default_rng(5)) for _ in range(2))
    assert [q.text for q in first] == [q.text for q in second]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first, second, strict=True))
    assert [q.text for q in first] != [q.text for q in builder.build(RICH, np.random.default_rng(6))]


def test_a_question_holds_what_its_expression_says() -> None:
    annotated = village()
    for found in asked(annotated, max_questions=30, paraphrases=1):
        question = found.question(annotated)
        assert (question.text, question.answer, question.kind) == (found.text, found.answer, found.kind)
        assert found.answer == answer_text(found.claim, found.referents, annotated, TABLE)
        assert question.task == ("reasoning" if found.claim.need is not None else "referring")
        assert np.array_equal(question.mask, annotated.union_mask(found.referents.ids, found.referents.within))
        assert question.mask.any() == (found.kind != "absent")


def test_stuff_in_a_place_is_cut_in_the_question_too() -> None:
    found = asked(village(), max_questions=60, mix={"position": 1.0})
    (road,) = [e for e in found if e.claim == Claim(("road",), region="left half")][:1]
    assert np.flatnonzero(road.question(village()).mask.any(axis=0)).tolist() == list(range(50))


def test_a_question_counts_where_all_its_classes_are_known() -> None:
    """In a mosaic, a part in which nobody looked for roads says nothing about roads."""
    left, right = (0, 0, 50, 100), (50, 0, 100, 100)
    annotated = replace(village(), known_where=((left, frozenset(TABLE.classes)), (right, frozenset({"road"}))))
    seen = set()
    for found in asked(annotated, max_questions=60, mix={"class": 0.5, "neighbour": 0.5}):
        valid = found.question(annotated).valid
        known_everywhere = found.claim.mentioned == {"road"}
        seen.add(known_everywhere)
        if known_everywhere:
            assert valid is None
        else:
            assert valid.tolist() == [[True] * 50 + [False] * 50] * 100
    assert seen == {True, False}


class TestWholeClasses:
    def test_those_that_are_there_and_some_that_are_not(self) -> None:
        """A driveway is taken for a road, so it cannot be said that there is none."""
        names: dict[str, set[str]] = {}
        builder, counts = ExpressionBuilder(TABLE), Counter()
        for seed in range(100):
            found = builder.classes(village(), np.random.default_rng(seed), 2)
            there, missing = found[:3], found[3:]
            assert [(e.kind, e.claim, e.referents, e.answer) for e in there] == [
                ("class", Claim(("building",)), Referents((1, 2, 3)), ""),
                ("class", Claim(("swimming pool",)), Referents((4,)), ""),
                ("class", Claim(("road",)), Referents((5,)), ""),
            ]
            for e in missing:
                assert (e.kind, e.referents, e.answer) == ("absent", Referents(()), "")
                assert e.claim == Claim(e.claim.categories, absent=True)
            for e in found:
                names.setdefault(e.claim.categories[0], set()).add(e.text)
            counts[len(missing)] += 1
        assert names == {
            name: {plural for _, plural in TABLE.words(name).names}
            for name in ("building", "swimming pool", "road", "vehicle", "ship")
        }
        assert set(counts) == {1, 2}  # of three, two are drawn: now and then with the driveway
        assert [e.kind for e in builder.classes(village(), np.random.default_rng(0), 0)] == ["class"] * 3

    def test_margins_and_table_are_the_builders(self) -> None:
        renamed = replace(TABLE, classes={**TABLE.classes, "building": TABLE.classes["stadium"]})
        builder = ExpressionBuilder(renamed, BuilderSettings(margins=Margins(ask_incomplete=False)))
        annotated = replace(village(), incomplete=frozenset({"road"}), vocabulary=frozenset({"ship"}))
        found = builder.classes(annotated, np.random.default_rng(0), 9)
        assert [e.claim.categories[0] for e in found] == ["building", "swimming pool", "ship"]
        assert found[0].text in {plural for _, plural in TABLE.words("stadium").names}


def test_margins_and_table_reach_the_claims() -> None:
    annotated = replace(village(), incomplete=frozenset(("building",)))
    classes = dict(mix={"class": 1.0}, max_questions=40)
    assert ("building",) in {e.claim.categories for e in asked(annotated, **classes)}
    never = asked(annotated, **classes, margins=Margins(ask_incomplete=False))
    assert never and ("building",) not in {e.claim.categories for e in never}
    renamed = replace(TABLE, classes={**TABLE.classes, "road": TABLE.classes["ship"]})
    builder = ExpressionBuilder(renamed, BuilderSettings(mix={"class": 1.0}, max_questions=40))
    assert any("ship" in q.text for q in builder.build(village(), np.random.default_rng(0)))


def test_defaults_are_the_built_in_table_and_mix() -> None:
    builder = ExpressionBuilder()
    assert builder.table == TABLE and builder.settings == BuilderSettings()
    assert builder.settings.max_questions == 8 and builder.settings.mix == DEFAULT_MIX
    assert sum(DEFAULT_MIX.values()) == pytest.approx(1) and set(DEFAULT_MIX) == set(PROPOSERS)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ConfigError, match="mix: unknown kind 'positon'; did you mean 'position'"):
        ExpressionBuilder(TABLE, BuilderSettings(mix={"positon": 1.0}))
