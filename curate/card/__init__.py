"""What a finished build says of itself where it is published: a dataset card and Croissant metadata."""
