"""The data report: whole, told apart, readable on a phone, and everything escaped."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_prep.chat_templates import load_template
from data_prep.pipeline import prepare
from data_prep.settings import DataConfig
from data_prep.tokenizer import load_tokenizer
from llmkit.report.charts import EDGE_WIDTH, histogram
from llmkit.report.data_report import render_data_report

EVIL = "<script>alert(1)</script>"


class Cells(HTMLParser):
    """Tags, the cells of tables with their attributes, and the texts of summaries."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[dict[str, str | None]]] = []
        self.summaries: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append(dict(attributes))
        if tag == "summary":
            self.summaries.append("")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.summaries and self.tags[-1] == "summary":
            self.summaries[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(tiny: Path, tmp_path: Path) -> Cells:
    """The report of rows with everything that there is to tell."""

    def write(name: str, rows: list[dict[str, Any]]) -> str:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    def row(number: int, answer: str = "so") -> dict[str, Any]:
        words = " ".join(f"{chr(97 + number)}{chr(97 + i)}" for i in range(20))
        return {"instruction": f"how {words}", "output": f"{answer} {words}", f"note {EVIL}": "x"}

    held_out = [row(0), row(1)]
    near = row(9) | {"output": row(9)["output"] + " then"}
    rows = [*map(row, range(2, 12)), row(2), row(3), near, row(0, "yes"), row(1, "no")]
    rows += [row(12, "so " * 200), {"instruction": EVIL, "output": f"{EVIL} mail a@example.com"}]
    rows += [{"instruction": "empty", "output": ""}, row(13)]
    config = DataConfig.model_validate(
        {
            "sources": [{"path": write(f"rows{EVIL[:8]}.jsonl", rows)}],
            "validation": {"path": write("held.jsonl", held_out)},
            "contamination": {"against": [write("set.jsonl", [{"question": row(13)["output"]}])]},
            "filters": [{"kind": "personal", "action": "mask"}],
            "dedup": {"minhash": {}},
            "on_error": "skip",
            "max_tokens": 256,
            "overlong": "split",
        }
    )
    (tmp_path / "out").mkdir()
    prepare(config, load_template("keep", load_tokenizer(tiny)), tmp_path / "out")
    return Cells(render_data_report("demo", tmp_path / "out"))


def test_entries_are_told_apart(page: Cells) -> None:
    assert len(page.summaries) > 8
    assert len(set(page.summaries)) == len(page.summaries)
    leaks = [text for text in page.summaries if ", in validation: " in text]
    assert len(leaks) == 2
    assert all(re.search(r"jsonl:1[45] repeats .*held\.jsonl:[12]", text) for text in leaks)


def test_rows_that_contradict_each_other_are_shown_as_such(tmp_path: Path, tiny: Path) -> None:
    pair = {"prompt": "Which?", "chosen": "the first", "rejected": "the second"}
    turned = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    rows = [pair, turned, pair | {"prompt": "And now?"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = DataConfig.model_validate({"sources": [{"path": str(path)}]})
    template = load_template("keep", load_tokenizer(tiny))
    (tmp_path / "out").mkdir()
    prepare(config, template, tmp_path / "out", units="pairs")
    page = Cells(render_data_report("demo", tmp_path / "out"))
    assert "Of two rows that say the opposite neither stays." in page.text
    assert sum("jsonl:1 contradicts" in text for text in page.summaries) == 1
    assert page.text.count("removed as well: ") == 2
    assert "repeats" not in page.text
    assert "chosen: the first rejected: the second" in page.text


def test_every_figure_has_a_label_on_a_narrow_screen(page: Cells) -> None:
    """There the heads of tables are not shown."""
    labelled = [cells for cells in page.rows if cells]
    assert len(labelled) > 12
    for cells in labelled:
        assert all(cell.get("data-label") for cell in cells[1:])
        assert len({cell["data-label"] for cell in cells[1:]}) == len(cells) - 1


def test_the_account_is_shown_to_balance_and_how_sources_were_read(page: Cells) -> None:
    found = re.search(
        r"Rows: (\d+) in = (\d+) kept whole \+ (\d+) split into \d+ pieces \+ (\d+) dropped. "
        r"Tokens: ([\d,]+) in = ([\d,]+) kept \+ ([\d,]+) cut off \+ ([\d,]+) dropped",
        page.text,
    )
    assert found, page.text[:3000]
    numbers = [int(figure.replace(",", "")) for figure in found.groups()]
    assert numbers[0] == sum(numbers[1:4]) == 21
    assert numbers[4] == sum(numbers[5:])
    assert "read as alpaca (from its fields): it has 'instruction' and 'output'" in page.text
    assert page.text.count("held out, read as alpaca") == 1
    assert f"Fields that nothing is made of: note {EVIL} (19 rows)" in page.text
    assert "1 email masked; nothing else" in page.text
    assert "Rows over 256 tokens were split" in page.text


def test_every_text_of_the_data_is_escaped(page: Cells) -> None:
    assert "script" not in page.tags
    assert page.text.count(EVIL) > 2


@pytest.mark.parametrize("bars", range(1, 24))
def test_a_histogram_labels_its_last_edge_and_no_label_covers_another(bars: int) -> None:
    chart = histogram([0, *[3] * bars], "")
    assert chart
    found = re.findall(r'x="([\d.]+)" y="182" text-anchor="middle">([^<]+)<', chart)
    places = [float(place) for place, _ in found]
    assert all(b - a >= EDGE_WIDTH for a, b in pairwise(places))
    units = {"k": 2**10, "M": 2**20}
    last = found[-1][1]
    assert int(last.rstrip("kM")) * units.get(last[-1], 1) == 2 ** (bars + 1)
    assert chart.count("<rect") == bars


def test_of_no_values_there_is_no_histogram() -> None:
    assert histogram([], "") is None
    assert histogram([0, 0], "") is None
