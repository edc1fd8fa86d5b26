"""The pages that are made for the site of the documentation."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import pytest
from tiny import ROOT

site = pytest.importorskip("tools.site")


def test_settings_are_read_with_their_values_and_comments():
    lines = [
        "_target_: own.Class",
        "a: 1   # one",
        "       # and more",
        "b:   # holds",
        "  c: ${x}",
        "- none",
    ]
    assert site.settings(lines) == [
        ["_target_", "own.Class", ""],
        ["a", "1", "one and more"],
        ["b", "", "holds"],
        ["b.c", "${x}", ""],
    ]


def test_every_file_of_the_configuration_has_its_place():
    page = site.configuration()
    folders = {file.parent.name for file in (ROOT / "conf").glob("*/*.yaml")} - {"hydra"}
    for folder in folders:
        for file in (ROOT / "conf" / folder).glob("*.yaml"):
            assert f"### {folder}={file.stem}\n" in page


def test_every_public_name_is_on_a_page():
    page = site.python("metrics")
    assert "::: adaptive_diffusion.metrics.frechet.frechet_distance\n" in page


def test_a_name_of_two_packages_is_described_once_and_linked_where_it_is_not():
    pages = {package: site.python(package) for package in site.PACKAGES}
    described = re.findall(r"^::: (.*)$", "\n".join(pages.values()), re.MULTILINE)
    assert len(described) == len(set(described))
    path = "adaptive_diffusion.diffusion.schedule.NoiseSchedule"
    assert f"[`NoiseSchedule`](baseline.md#{path})" in pages[""]
    assert f"::: {path}\n" in pages["baseline"]


@pytest.mark.parametrize(
    ("uri", "link", "leads"),
    [
        ("guide/first-run.md", "../../CONTRIBUTING.md", "../project/contributing.md"),
        ("guide/first-run.md", "metrics.md#a-part", "metrics.md#a-part"),
        ("index.md", "../conf", "reference/configuration.md"),
        ("project/contributing.md", "docs/extend.md", "../extend.md"),
        ("project/encoder_card.md", "MODEL_CARD.md", "model_card.md"),
        ("index.md", "https://mlflow.org", "https://mlflow.org"),
    ],
)
def test_links_lead_to_pages_of_the_site(uri, link, leads):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    assert site.on_page_markdown(f"[a]({link})", page) == f"[a]({leads})"


def test_every_page_has_its_place_in_the_navigation():
    written = {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert written - named == set()


def test_the_search_has_a_name_for_screen_readers():
    assert site.on_post_page('<div role="dialog">') == '<div role="dialog" aria-label="Search">'


def test_a_keyboard_reaches_tables():
    assert site.on_post_page("<table>\n<thead>") == '<table tabindex="0">\n<thead>'


def test_no_page_leaves_out_a_level_of_headings():
    for page in [*(ROOT / "docs").rglob("*.md"), *map(ROOT.joinpath, site.OUTSIDE)]:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        levels = [1, *(len(hashes) for hashes in re.findall(r"^(#+) ", text, re.MULTILINE))]
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), page
