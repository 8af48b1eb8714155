"""The trajectories that may be followed beside gradient descent, by the family name of their columns."""

from collections.abc import Mapping

from engine.dynamics.central_flow import CENTRAL
from engine.dynamics.flow import FLOW
from engine.dynamics.trajectory import Trajectory

TRAJECTORIES: Mapping[str, Trajectory] = {"flow": FLOW, "central": CENTRAL}
