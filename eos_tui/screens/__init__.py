"""Screens: the launcher, the dashboard, and what opens above them."""
