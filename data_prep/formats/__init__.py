"""Raw records -> rows and back: one format a file; `registry` knows them all."""
