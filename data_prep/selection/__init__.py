"""Which rows are chosen, when there are more than are wanted."""
