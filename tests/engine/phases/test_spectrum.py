"""Several unstable eigenvalues: the recorded spectrum against `eigh`, and the events that tell it."""

import numpy as np
import pytest

from engine.phases.context import setup
from engine.phases.experiment import Experiment
from engine.record import messages
from engine.record.columns import columns_for

from small import chebyshev_spec, dense_hessian, under

pytestmark = pytest.mark.usefixtures("x64")
ETA = 0.5
LEAN = {"flow": False, "predictions": [], "gauges_every": 0}


def drive(experiment: Experiment, steps: int) -> tuple[np.ndarray, list, dict]:
    """Rows and events until so many steps past the edge, and θ at each of these steps."""
    table, events, thetas = [], [], {}
    while experiment.edge_step is None or experiment.clock.step < experiment.edge_step + steps:
        if experiment.edge_step is not None:
            thetas[experiment.clock.step] = experiment.state.theta
        progress = experiment.advance(1000 if experiment.edge_step is None else 1)
        table += progress.rows
        events += progress.events
    return np.array(table), events, thetas


def spectrum(experiment: Experiment, table: np.ndarray) -> np.ndarray:
    """λ1, λ2, … as recorded, (rows, columns)."""
    places = experiment.setup.column_index
    return table[:, [places["gd.sharpness"], *(place for name, place in places.items() if name.startswith("gd.lambda"))]]


@pytest.fixture(scope="module")
def several(x64):
    """Gradient descent of the small network 80 steps past the edge, where four eigenvalues come above 1.5/η."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.curvature.eigensolver.LOOSE", 1e-3)  # at 1e-2 a pair that another is about to cross may be 1 % off
        experiment = Experiment(chebyshev_spec(ETA, on_second_eigenvalue="gradient_descent", **LEAN))
        approached, _, _ = drive(experiment, 0)
        EDGE.update(experiment.leaves())
        table, events, thetas = drive(experiment, 80)
        yield experiment, np.concatenate([approached, table]), events, thetas


EDGE: dict[str, np.ndarray] = {}
"""The experiment as it reached the edge."""


def at_the_edge(several, **tracking) -> Experiment:
    """The same experiment at the edge, under another specification: nothing is compiled anew."""
    before = several[0]
    experiment = under(before, setup(chebyshev_spec(ETA, **LEAN, **tracking), before.setup.problem, before.state.theta.size))
    experiment.restore({name: np.array(leaf) for name, leaf in EDGE.items()})
    return experiment


def test_the_recorded_spectrum_is_that_of_eigh(several):
    experiment, table, _, thetas = several
    recorded = spectrum(experiment, table)
    assert experiment.phase == "gradient descent"
    for step in sorted(thetas)[::4]:
        dense = np.linalg.eigvalsh(dense_hessian(experiment.setup.problem, thetas[step]))[::-1]
        row = recorded[step]
        count = int(np.isfinite(row).sum())
        assert np.isnan(row[count:]).all()
        np.testing.assert_allclose(row[:count], dense[:count], atol=2e-2 * dense[0])  # LOOSE, and twice that for a near pair
        large = dense[:count] * ETA > 1
        np.testing.assert_allclose(row[:count][large], dense[:count][large], rtol=2e-3)


def test_every_eigenvalue_above_one_and_a_half_is_followed(several):
    experiment, table, _, thetas = several
    recorded = spectrum(experiment, table)
    for step, theta in thetas.items():
        above = int((np.linalg.eigvalsh(dense_hessian(experiment.setup.problem, theta)) * ETA > 1.5).sum())
        assert (recorded[step] * ETA > 1.5).sum() == above
        assert np.isfinite(recorded[step]).sum() > above  # the first one below is seen too


def test_the_number_grows_only_as_needed_and_says_so(several):
    experiment, table, events, _ = several
    counts = np.isfinite(spectrum(experiment, table)[experiment.edge_step:]).sum(axis=1)
    assert (np.diff(counts) >= 0).all()
    grown = [event for event in events if isinstance(event, messages.SpectrumGrown)]
    assert grown  # how far it grows is the trajectory's: six with jaxlib 0.10, four with 0.12
    assert [event.count for event in grown] == list(range(4, counts[-1] + 1, 2))
    for event in grown:
        assert counts[event.step - experiment.edge_step] == event.count
        assert f"from step {event.step}" in event.text


def test_an_event_names_the_step_at_which_each_eigenvalue_becomes_unstable(several):
    experiment, table, events, _ = several
    recorded = spectrum(experiment, table) * ETA > 2
    unstable_from = {event.number: event.step for event in events if isinstance(event, messages.EigenvalueUnstable)}
    assert len(unstable_from) >= 2
    assert unstable_from == {k + 1: int(np.argmax(recorded[:, k])) for k in range(recorded.shape[1]) if recorded[:, k].any()}


def test_a_snapshot_with_more_eigenvalues_goes_on_as_if_never_interrupted(several):
    experiment = several[0]
    leaves = {name: np.array(leaf) for name, leaf in experiment.leaves().items()}
    resumed = Experiment(experiment.spec)
    resumed.restore(leaves)
    assert resumed.state.eigenvector_history.shape[1] == experiment.state.eigenvector_history.shape[1] > 2
    rows = [np.array([each.advance(1).rows[0] for _ in range(3)]) for each in (experiment, resumed)]
    np.testing.assert_array_equal(*rows)


def test_theta_dagger_keeps_its_two_pairs_while_more_are_followed(several):
    experiment = at_the_edge(several, on_second_eigenvalue="keep", max_eigenvalues=3)
    table, events, _ = drive(experiment, 5)
    assert experiment.phase == "edge"
    assert experiment.state.center.eigen.vectors.shape[0] == 2
    assert np.isfinite(spectrum(experiment, table)).all()
    assert [event.count for event in events if isinstance(event, messages.SpectrumGrown)] == [3]  # no more than have a column


def test_assumption_2_is_read_on_every_step_and_ends_the_run_or_not_as_asked(several):
    """At η = 0.5 the second eigenvalue of the small network is near 1.9/η as the edge is reached."""
    limit = 1.85
    experiment = at_the_edge(several, on_second_eigenvalue="stop", second_eigenvalue_limit=limit)
    lambda2 = experiment.setup.column_index["constrained.lambda2"]
    center = experiment.state.center
    progress = experiment.advance(1)
    dense = np.linalg.eigvalsh(dense_hessian(experiment.setup.problem, center.theta))
    assert dense[-2] * ETA >= limit
    assert progress.outcome.kind == "second_eigenvalue"
    assert progress.outcome.step == experiment.edge_step
    assert progress.rows[0][lambda2] == pytest.approx(dense[-2], rel=1e-3)

    kept = at_the_edge(several, on_second_eigenvalue="keep", second_eigenvalue_limit=limit)
    events, table = [], []
    for _ in range(6):
        progress = kept.advance(1)
        assert progress.outcome is None
        events, table = events + progress.events, table + progress.rows
    assert kept.phase == "edge"
    failed = [event for event in events if isinstance(event, messages.AssumptionFailed)]
    assert [(event.step, event.assumption) for event in failed] == [(kept.edge_step, 2)]
    assert (np.array(table)[:, lambda2] * ETA >= limit).all()

    later = at_the_edge(several, on_second_eigenvalue="stop", second_eigenvalue_limit=1.95)
    center, progress = later.state.center, later.advance(1)
    assert (progress.outcome is None) == (float(center.eigen.values[1]) * ETA < 1.95)


def test_the_number_stays_where_no_more_columns_are_allotted():
    names = [column.name for column in columns_for(chebyshev_spec(eigenvalues=4, max_eigenvalues=2))]
    assert [name for name in names if "lambda" in name and name.startswith("gd.")] == ["gd.lambda2", "gd.lambda3", "gd.lambda4"]
