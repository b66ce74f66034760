"""Small patterns of attribution graphs: how many there are, how many a null model expects, and between which graphs
they differ."""
