"""Claims of any shape that can be worded, drawn by hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from segearth.data.questions.claims import SIDES, Claim
from segearth.data.questions.regions import REGIONS
from segearth.data.questions.table import Table

POOL = Claim(("swimming pool",), one=True)


def draw_claim(data: st.DataObject, table: Table) -> tuple[Claim, int]:
    """Returns a claim, and of how many objects it shall be true."""
    name = data.draw(st.sampled_from(sorted(table.classes)))
    facts = [(key, value) for key, spec in table.attributes.items() for value in spec.values]
    claim = Claim((name,), attribute=data.draw(st.sampled_from([None, *facts])))
    told = data.draw(st.sampled_from(["region", "rank", "count", "relation", "nothing"]))
    number = data.draw(st.integers(1, 9))
    if told == "region":
        claim = replace(claim, region=data.draw(st.sampled_from(sorted(REGIONS))), one=number == 1)
    elif told == "rank":
        claim, number = replace(claim, rank=data.draw(st.sampled_from((1, 2, -1))), one=True), 1
    elif told == "count":
        number = max(number, 2)
        claim = replace(claim, count=number)
    elif told == "relation":
        anchor = data.draw(st.sampled_from([POOL, Claim(("road",)), Claim(("ship",), rank=1, one=True)]))
        claim = replace(claim, relation=data.draw(st.sampled_from((*SIDES, "closest", "beside"))), anchor=anchor)
        number = 1 if claim.relation == "closest" else number
    return claim, number
