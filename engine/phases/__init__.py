"""What a run goes through, from the approach to the end: the state of each phase, and its steps."""
