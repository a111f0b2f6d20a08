"""Tables and texts as people have them: one reader of encodings, delimiters, quotes, column types and nulls for all who read captions."""
