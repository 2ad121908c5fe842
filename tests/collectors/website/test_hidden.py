"""What the verdicts of tasks hide, on the page of the leaderboard."""

from __future__ import annotations

from pathlib import Path

from collectors.website.building import build_site
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.sites import Links


def test_leaderboard_page_counts_what_the_verdicts_hide(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    cell = BuiltCell(metric="exact_match", items=4)
    builder.run(cell, output_type="generate_until", correct_threshold=0.5)
    answers = ['["[invalid]"]', '["[invalid]"]', '["2"]', '["3"]']
    rows = []
    for item, answer in enumerate(answers):
        reason = "length" if item == 2 else "stop"
        rows.append(
            cell.record(item, score=item / 3 // 1, finish_reason=reason, filtered=answer, responses=[f"text {item}"])
        )
    builder.shard(cell, rows)
    build_site(builder.lake.uri, tmp_path / "site", draw=False)
    page = Links((tmp_path / "site" / "leaderboard.html").read_text())
    at = page.texts.index("What the verdicts hide")
    texts = [text.strip() for text in page.texts[at:] if text.strip()]
    after = texts[texts.index(cell.task) :]
    assert after[:9] == [cell.task, "4", "1", "0", "0", "0", "2", "0", "0"]
