"""Where tasks run. One file per engine, found by file name."""
