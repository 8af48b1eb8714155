"""What a view knows of a run, and how much of it a plot needs. Without Textual."""
