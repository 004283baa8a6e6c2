"""Random changes of a patch: their settings and their draws. To add one, add a file with both."""
