"""What classes are called: files of class names and of prompt templates, in the shapes that people have, and labels as text."""
