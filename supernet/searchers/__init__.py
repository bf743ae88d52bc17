"""What to try next, from the journal of trials alone; one file a searcher."""
