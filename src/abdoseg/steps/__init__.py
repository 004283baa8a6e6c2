"""Steps: one verb each, callable from a notebook with plain values; what the command line calls.

To add one: write ``<verb>.py`` with one public function that takes a workspace and plain values, reports through
:class:`~abdoseg.progress.Progress`, prints nothing and returns a frozen report. Steps live in a package of their own so
that ``abdoseg.steps.train`` can be the function: a module of that name would hide it once it is imported.
"""
