"""What conversion reaches on real models: the table of recipes, models of MLPerf Tiny, the search, and its cost."""
