"""The sections of a report, one file each: what is counted, and its charts."""
