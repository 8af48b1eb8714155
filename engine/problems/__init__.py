"""A training loss as a function of one flat vector: networks and criteria, and losses of your own."""
