"""What is cited of the paper is where it is there: columns, gauges and lessons by one table, text by what stands near the citation."""

import re

import pytest

from engine.base.citations import PLACES
from engine.record.columns import COUPLED, columns_for, phase, predicted
from engine.report.gauges import GAUGES
from engine.spec import PREDICTIONS, preset_names
from eos_tui.lessons import STEPS

from places import ROOT
from small import chebyshev_spec

NUMBERED = re.compile(r"(Definition|Assumption|Lemma|Theorem)s? (\d+)(?:(?:,| and| to) (\d+))?")
TEXTS = [
    *(path for folder in ("engine", "eos_tui", "presets") for path in sorted((ROOT / folder).rglob("*.py"))),
    *sorted((ROOT / "presets").glob("*.toml")), ROOT / "README.md", ROOT / ".github" / "NUMBERS.md",
    *sorted((ROOT / "engine/help/text").glob("*.md")), *sorted((ROOT / "eos_tui/topics/text").glob("*.md")),
]


def symbols(place: str) -> list[str]:
    """What the table has at a place, by its symbols and words."""
    return [symbol for symbol, source in PLACES.items() if re.search(rf"{re.escape(place)}(?!\d)", source)]


def cited(text: str) -> set[str]:
    """The numbered statements that a text cites; `Assumptions 1 to 3` are three."""
    cited = set()
    for kind, first, last in NUMBERED.findall(text):
        cited |= {f"{kind} {k}" for k in range(int(first), int(last or first) + 1)}
    return cited


def test_the_table_has_what_the_paper_says():
    expected = {
        "θ†": "(2)", "M": "Section 3", "α": "Definition 2", "ε": "Definition 6", "γ": "Assumption 4", "v⋆": "Definition 7, (6)",
        "∇S": "Lemma 2", "g": "Lemma 3", "first guess": "Lemma 13", "map": "(3)", "flow": "(4)", "y⋆": "(5)", "stage": "Section 4.1",
    }
    assert {symbol: PLACES[symbol] for symbol in expected} == expected


@pytest.mark.parametrize(("column", "symbol"), [
    ("constrained.loss", "θ†"), ("constrained.sharpness", "θ†"), ("constrained.projections", "θ†"), ("constrained.sharpness_gap", "M"),
    ("constrained.gradient_along_u", "M"), ("constrained.alpha", "α"), ("constrained.epsilon", "ε"), ("constrained.gamma", "γ"),
    ("constrained.lambda2", "λ2"), ("stage", "stage"), ("transported.x", "v⋆"), ("transported.distance", "v⋆"), ("generalized.x", "F"),
    ("unrolled.y", "y⋆"), ("unrolled.beta", "β_{s→t}"), ("assumption.stabilization", "‖∇S⊥‖/ρ3"), ("assumption.quartic", "ρ4/(ηρ3²)"),
    ("assumption.cubic_displacement", "v⊥"), ("assumption.cubic_gradient", "g⊥"), ("assumption.quadratic_displacement", "v⊥"),
    ("map1.x", "map"), ("ode1.y", "flow"), ("map1.energy", "g"), ("ode1.energy", "g"), ("flow.distance", "flow from θ†"),
])
def test_a_column_cites_where_its_symbol_is_in_the_table(column, symbol):
    recorded = {each.name: each for each in (*columns_for(chebyshev_spec(beta_every=1)), *phase(1))}
    assert recorded[column].source == PLACES[symbol]


def test_no_column_cites_a_statement_for_what_the_table_has_elsewhere():
    """A column whose symbol is one of the table's cites the table's place, whatever columns are added."""
    recorded = (*columns_for(chebyshev_spec(beta_every=1)), *phase(2), *(column for form in PREDICTIONS for column in predicted(form)))
    for column in (*recorded, *COUPLED):
        if column.symbol in ("α", "ε", "γ", "θ†", "L(θ†)", "S(θ†)", "λ2(θ†)", "β_{s→t}", "g", "ρ4/(ηρ3²)", "‖∇S⊥‖/ρ3"):
            symbol = re.sub(r"^[LS]\(θ†\)$", "θ†", column.symbol).replace("λ2(θ†)", "λ2")
            assert column.source == PLACES[symbol], column.name
        for statement in cited(column.source):
            assert symbols(statement) or statement == "Theorem 1", column.name


def test_gauges_cite_the_assumption_and_number_the_plots():
    """The numbers 1 to 8 are those of the plots of Appendix E: no gauge but A2 has the number of its assumption, unless by chance."""
    assert {gauge.label: cited(gauge.source) for gauge in GAUGES} == {
        "1": {"Assumption 1", "Definition 2"}, "2": {"Definition 6"}, "3": {"Assumption 4"}, "4": {"Assumption 4"}, "5": {"Assumption 3"},
        "6": {"Assumption 5"}, "7": {"Assumption 5"}, "8": {"Assumption 5"}, "A2": {"Assumption 2"},
    }


def test_lessons_cite_what_their_formulas_hold():
    sources = {step.title: step.source for step in STEPS}
    assert sources["Progressive sharpening"] == "Section 1; Definition 2, Assumption 1"
    assert "descent lemma (1)" in sources["The threshold 2/η"]
    assert sources["The constrained trajectory"] == "Section 3, equation (2)"
    assert "Definition 7, (6)" in sources["The prediction, and its limits"]
    assert sources["Past one direction"].startswith("Assumption 2;")
    for step in STEPS:
        for statement in cited(step.source) - {"Theorem 1"}:
            assert any(symbol.split()[0] in step.formula for symbol in symbols(statement)), (step.title, statement)


WORDS = {
    "Assumption 1": ("sharpening",), "Assumption 2": ("eigenvalue", "direction", "gauges"), "Assumption 3": ("ρ4",), "Lemma 2": ("∇S",),
    "Lemma 3": ("conserve", "level", "orbit", "simplified", "start"), "Lemma 13": ("guess", "θ†"), "Definition 7": ("predict", "(5)"),
}
"""What else a text may call what a statement is about."""


def test_text_cites_a_statement_only_where_it_speaks_of_it():
    """Every Definition, Assumption, Lemma and Theorem that is cited is in the table, and its symbol or words are in the same paragraph."""
    looked_at = 0
    for path in TEXTS:
        for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            for statement in cited(block) - {"Theorem 1"}:
                looked_at += 1
                names = symbols(statement)
                assert names, f"{path.name}: {statement} is not in the table of engine/base/citations.py"
                assert any(name in block for name in (*names, *WORDS.get(statement, ()))), f"{path.name}: {statement} in {block!r}"
            for symbol, statement in re.findall(r"([^\s,;:(]+) \(((?:Definition|Assumption|Lemma|Section) [\d.]+)\)", block):
                assert symbol not in PLACES or statement in PLACES[symbol], f"{path.name}: {symbol} ({statement})"
    assert looked_at > 40  # as many as there were


def test_text_cites_equations_where_it_speaks_of_them():
    """(1) is the descent lemma, (2) is θ†, and so on."""
    about = {
        "1": ("descent lemma",), "2": ("θ†", "stable set"), "3": ("map", "x ←", "y ←"), "4": ("flow", "X'"), "5": ("predict", "sum", "β"),
        "6": ("v⋆", "Definition 7", "predict"),
    }
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"[Ee]quations? \((\d)\)", text):
            near = text[max(match.start() - 300, 0) : match.end() + 300]
            assert any(name in near for name in about[match[1]]), f"{path.name}: {near!r}"


def test_the_check_of_text_would_find_a_wrong_number():
    assert cited("Assumptions 1 to 3") == {"Assumption 1", "Assumption 2", "Assumption 3"}
    assert not symbols("Definition 4")
    assert not symbols("Definition 5")
    assert symbols("Definition 6") == ["ε"]
    assert symbols("Assumption 4") == ["γ", "‖∇S⊥‖/ρ3"]
    assert symbols("Lemma 1") == []  # not that of Lemma 13
    assert {f"{name}.toml" for name in preset_names()} <= {path.name for path in TEXTS}
