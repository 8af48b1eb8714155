"""The colours and strokes of figures on paper. Colours are those of Okabe and Ito, distinct to colour-blind eyes."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
RATES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
"""Colours of runs at different η."""
DESCENT, CONSTRAINED, PREDICTED, FLOW = BLUE, BLACK, VERMILION, GREEN
STAGES = {1: SKY, 2: YELLOW, 3: VERMILION, 4: GREEN}
OLIVE, GREY = "#7A7000", "#777777"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, OLIVE, GREY)
DASHES = ("-", (0, (6, 2)), (0, (6, 2, 1, 2)), (0, (2, 1)), (0, (6, 1, 1, 1, 1, 1)), (0, (10, 3)), (0, (3, 1, 1, 1)), (0, (10, 2, 2, 2)))
STROKES = tuple((COLORS[k % 8], DASHES[(k + k // 8) % 8]) for k in range(16))
"""Colour and dashes of each eigenvalue: no colour and no dashes twice among the first eight, and no stroke twice among all. None is
dotted as 2/η is."""
