"""The training engine: plain parts around one plain loop (:func:`abdoseg.engine.fit.fit`).

Nothing here knows a workspace or a run's folder: a step gives the parts what they need.
"""
