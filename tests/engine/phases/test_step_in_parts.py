"""What the host asks of the device for a step out of parts, as on a CPU."""

import sys

from engine.curvature import guards
from engine.phases import edge
from engine.problems.build import build
from engine.spec import load_spec
from engine.xla import device

from places import TESTS

sys.path.insert(0, str(TESTS / "bench"))

import counting
import tracked


def test_a_step_asks_for_few_programs_and_waits_twice_where_it_looks_around_too():
    """Of four steps θ† looks around in one, and gradient descent and the flow in the next. Nothing is done between the programs."""
    spec = load_spec("digits", [
        "problem.data.examples=20", "problem.model.widths=[4]", "tracking.gauges_every=0", "tracking.landscape_every=0",
        "tracking.audit_every=0", "tracking.beta_every=0", "tracking.max_eigenvalues=2", 'tracking.on_second_eigenvalue="keep"',
    ])
    device.configure()
    problem, theta, _ = build(spec)
    setup, state = tracked.brought_to_edge(spec, problem, theta)
    asked = {}
    for counted in (False, True):  # once for what is compiled
        for _ in range(guards.EVERY):
            step, moved = state.clock.step, []
            if counted:
                asked[step % guards.EVERY] = counting.asked(lambda: moved.append(edge.advance(setup, state, 1)[0]))  # noqa: B023
            else:
                moved.append(edge.advance(setup, state, 1)[0])
            (state,) = moved
    assert asked == {0: (11, 2), 1: (12, 2), 2: (9, 2), 3: (9, 2)}
