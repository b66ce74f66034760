"""A study as folders that others can take: dictionaries, tables and graphs with cards of their own."""
