"""What `eos help TOPIC` tells: its topics, what of them is made from the code, and how they reach a terminal, a pipe, a page and a site."""

import json
import re
from html.parser import HTMLParser

import msgspec
import pytest
from textual.widgets import OptionList

from engine.commands import main as headless
from engine.help import settings, tables
from engine.help.catalog import page
from engine.help.topics import TOPICS as OF_THE_ENGINE
from engine.record.columns import columns_for
from engine.spec import CoupledTracking, SharpnessTracking, fields_of, load_spec, preset_names, with_overrides
from eos_tui import cli, keys
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.help import Help
from eos_tui.topics.topics import TOPICS

from piloting import opened, text_of, until
from places import ROOT
from synthetic import make_run
from terminals import Terminal

PROMISED = {
    "keys", "presets", "columns", "settings", "terminal", "ssh", "gpu", "slurm", "data", "sweeps", "export", "figures", "own-model",
    "run-directory", "extending", "numbers", "theory",
}  # fmt: skip


def test_the_topics_are_those_promised_and_every_text_is_one():
    names = [topic.name for topic in TOPICS]
    assert set(names) >= PROMISED
    assert len(set(names)) == len(names)
    texts = [path.stem for folder in ("engine/help", "eos_tui/topics") for path in (ROOT / folder / "text").glob("*.md")]
    assert sorted(texts) == sorted(names)
    assert {topic.name for topic in OF_THE_ENGINE} == {path.stem for path in (ROOT / "engine/help/text").glob("*.md")}


@pytest.mark.parametrize("topic", TOPICS, ids=[topic.name for topic in TOPICS])
def test_a_topic_is_whole_and_what_it_refers_to_is_there(topic):
    text = topic.markdown()
    assert text.startswith(f"# {topic.title}\n\n")
    assert "<!--" not in text
    for words in re.findall(r"`eos help ([a-z][^`]*)`", text):
        assert page(TOPICS, words.split()).text
    for path in re.findall(r"`((?:\.github|tests|engine|eos_tui|presets)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_topic_of_settings_has_every_setting_of_every_kind():
    entries = {name: words for section in settings.sections() for name, words in section.entries}
    for name in preset_names():
        spec = load_spec(name)
        chosen = {path for path, _ in fields_of(spec)}
        arguments = {path for path in chosen if path.startswith("problem.arguments.")}
        assert chosen - arguments <= set(entries), name
    assert len(entries) > 60


def test_a_setting_is_listed_with_its_default_its_values_and_its_words():
    entries = {name: words for section in settings.sections() for name, words in section.entries}
    assert entries["tracking.anchor_every"].startswith(" = `0` (whole number from 0): Steps between re-anchorings of every prediction")
    assert entries["optimizer.learning_rate"].startswith(", required (number above 0)")
    assert '(`"follow"` or `"stop"` or `"gradient_descent"` or `"keep"`)' in entries["tracking.on_second_eigenvalue"]
    assert "(number above 0, at most 0.1)" in entries["tracking.eigen_tolerance"]
    assert "(list of 3: number above 0, number above 0, number above 0)" in entries["approach.check_times"]
    assert all(words.rstrip().endswith((".", ")")) for words in entries.values())


def test_a_default_that_is_listed_is_the_one_in_force():
    kinds = {"coupled": CoupledTracking, "sharpness": SharpnessTracking}
    sections = [section for section in settings.sections() if section.name == "tracking"]
    for section, (mode, kind) in zip(sections, kinds.items(), strict=True):
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        (chooser, chooses), *entries = section.entries
        assert (chooser, chooses.partition(":")[2]) == ("tracking.mode", " chooses this section.")
        assert json.loads(chooses.split("`")[1]) == mode
        assert [name for name, _ in entries] == [f"tracking.{name}" for name in fields]
        for name, words in entries:
            default = json.loads(words.split("`")[1])
            spec = with_overrides(load_spec("fashion"), [f"tracking.mode={mode}", f"{name}={json.dumps(default)}"])
            field = name.rpartition(".")[2]
            assert getattr(spec.tracking, field) == fields[field].default
    assert "may be left out" in sections[0].entries[0][1]


def test_the_topic_of_columns_has_every_column_that_a_preset_records():
    entries = {name for section in tables.column_sections() for name, _ in section.entries}
    for name in preset_names():
        recorded = {column.name for column in columns_for(load_spec(name))}
        assert {_numbered(column) for column in recorded} <= {_numbered(entry) for entry in entries}, name


def _numbered(column: str) -> str:
    """A column's name without the number of the eigenvalue, direction or start that it is of."""
    return re.sub(r"(lambda|ode|map|\bx)\d+", r"\g<1>N", re.sub(r"x\d+x\d+$", "xNxN", column))


def test_the_tables_of_presets_and_figures_have_every_one():
    presets = tables.presets()
    assert all(f"| `{name}` | " in presets for name in preset_names())
    assert tables.figures().count("\n| `") == 8
    assert "| `cifar10` | 50,000 + 10,000 | 170 MB |" in tables.data_sets()


# -- on stdout


def test_in_a_pipe_a_topic_is_markdown_without_escape_sequences(capsys, monkeypatch):
    monkeypatch.setenv("PAGER", "no-such-pager")  # it is not asked for
    assert cli.main(["help", "keys"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# Keys\n\n")
    assert "\x1b" not in out
    assert cli.main(["help"]) == 0
    out = capsys.readouterr().out
    assert all(f"- `{topic.name}`: {topic.title}\n" in out for topic in TOPICS)


@pytest.mark.parametrize("words", [["settings", "tracking.anchor_every"], ["settings", "anchor_every"], ["tracking.anchor_every"]])
def test_one_setting_is_shown_alone(words, capsys):
    assert cli.main(["help", *words]) == 0
    out = capsys.readouterr().out
    assert "- `tracking.anchor_every` = `0`" in out
    assert out.count("\n- ") == 1


def test_a_section_is_shown_whole(capsys):
    assert cli.main(["help", "settings", "budget"]) == 0
    assert capsys.readouterr().out.count("\n- ") == 3
    assert cli.main(["help", "problem.model"]) == 0
    assert capsys.readouterr().out.count("## ") == 4


@pytest.mark.parametrize(("words", "expected"), [
    (["setings"], 'no such topic; did you mean "settings"? Topics: dashboard, '), (["zzzz"], "no such topic. Topics: dashboard, "),
    (["settings", "anchor_evry"], "not in the topic settings"), (["ssh", "tmux"], "not in the topic ssh; `help ssh` tells what is"),
    (["trackin.anchor_every"], 'did you mean "tracking.anchor_every"?'), (["a", "b", "c"], "expected a topic, or a topic and one part"),
])  # fmt: skip
def test_what_is_no_topic_is_refused_with_the_nearest(words, expected, capsys):
    assert cli.main(["help", *words]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.out == ""


def test_topics_are_json_too(capsys):
    assert cli.main(["help", "--json"]) == 0
    assert {one["topic"] for one in json.loads(capsys.readouterr().out)} >= PROMISED
    assert cli.main(["help", "gd.x", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["topic"] == "columns"
    assert "u_t·(θ_t − θ†_t)" in shown["text"]


def test_the_headless_commands_have_the_engines_topics(capsys):
    assert headless.main(["help", "settings"]) == 0
    assert "# Settings of a run" in capsys.readouterr().out
    assert headless.main(["help", "keys"]) == 2


def test_the_keys_listed_are_those_of_the_settings(capsys, tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text('[keys.dashboard]\nzoom_in = "z"\n')
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    try:
        assert cli.main(["help", "keys"]) == 0
    finally:
        keys.remap({})
    assert "| `z` | `zoom_in` | " in capsys.readouterr().out


def test_a_shell_completes_topics_and_their_parts(capsys):
    for words, expected in [(["help", "own"], "own-model"), (["help", "settings", "tr"], "tracking.anchor_every")]:
        assert cli.main(["__complete", *words]) == 0
        assert expected in [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]


# -- on a terminal


def test_on_a_terminal_a_long_topic_is_paged_and_drawn(tmp_path):
    with Terminal(tmp_path, "-m", "eos_tui", "help", "settings", PAGER="less", LESS="FX") as terminal:
        terminal.wait_for("Settings of a run")
        assert b"\x1b[1m" in terminal.sent
        assert "ESC[" not in terminal.text
        assert "`" not in terminal.text
        terminal.press("q")
        assert terminal.wait_for_end(30) == 0


@pytest.mark.parametrize("pager", ["cat", ""])
def test_a_pager_that_does_nothing_ends_by_itself(tmp_path, pager):
    with Terminal(tmp_path, "-m", "eos_tui", "help", "ssh", PAGER=pager, NO_COLOR="1") as terminal:
        assert terminal.wait_for_end(30) == 0
        assert "In tmux the" in terminal.text
        assert not re.search(rb"\x1b\[[\d;]*3\d[;m]", terminal.sent)  # no colours


def test_a_pager_that_is_not_there_is_reported(tmp_path):
    with Terminal(tmp_path, "-m", "eos_tui", "help", "ssh", PAGER="no-such-pager") as terminal:
        assert terminal.wait_for_end(30) == 2
        assert 'PAGER = "no-such-pager": no such program' in terminal.text


# -- as HTML


class Links(HTMLParser):
    """The anchors and the links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links = list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.append(value)
            if name == "href":
                self.links.append(value)


def test_the_topics_are_a_site_whose_links_lead_somewhere(tmp_path, capsys):
    site = tmp_path / "site"
    assert cli.main(["help", "--html", str(site)]) == 0
    assert capsys.readouterr().out.split() == [str(site / f"{name}.html") for name in ("index", *(topic.name for topic in TOPICS))]
    pages = {path.name: Links(path.read_text()) for path in site.iterdir()}
    for name, links in pages.items():
        assert len(set(links.anchors)) == len(links.anchors), name
        for link in links.links:
            target, _, anchor = link.partition("#")
            assert target.startswith("http") or not anchor or anchor in pages[target].anchors, (name, link)
            assert target.startswith("http") or target in pages, (name, link)
    assert "terminal.html" in re.findall(r'<a href="([^"]+)"><code>eos help terminal', (site / "keys.html").read_text())
    assert "tracking.anchor_every" in pages["settings.html"].anchors
    assert cli.main(["help", "--html", str(site), "--json"]) == 0  # written anew
    assert len(json.loads(capsys.readouterr().out)) == len(pages)
    assert cli.main(["help", "keys", "--html", str(site)]) == 2
    assert "written together" in capsys.readouterr().err


def test_a_site_that_cannot_be_written_is_reported_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["help", "--html", str(tmp_path / "file" / "under")]) == 2
    assert "pages cannot be written there" in capsys.readouterr().err


# -- in the app


@pytest.mark.parametrize("size", [(80, 24), pytest.param((120, 40), marks=pytest.mark.slow), (20, 6)])
async def test_the_page_of_help_goes_on_to_the_topics(runs, size):
    async with opened(make_run(runs), size) as (app, pilot):
        await pilot.press("question_mark")
        await until(lambda: isinstance(app.screen, Help))
        await pilot.press("tab")
        listed = app.screen.query_one(OptionList)
        await until(lambda: listed.has_focus)
        for topic in TOPICS[:3]:
            await until(lambda topic=topic: app.screen.query_one("#topics").border_title == topic.title)
            await pilot.press("down")
        if size[0] >= 80:
            await pilot.press("home", "down", "down")
            await until(lambda: "The keys in force" in text_of(app))
            assert "run-directory" in text_of(app)
            await pilot.press("right", "pagedown")
            await until(lambda: "The keys in force" not in text_of(app))
            await pilot.press("left", "down")
            await until(lambda: "--low-bandwidth" in text_of(app))
        await pilot.press("tab")
        await until(lambda: not listed.has_focus)
        await pilot.press("tab", "escape")
        assert isinstance(app.screen, Dashboard)
