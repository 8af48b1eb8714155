"""The process that is a run: it takes steps, writes them down and obeys; alone, or with others."""
