"""A scan with its label maps in the browser: what is shown, what is sent, and the server on this machine alone.

``scene`` says what a page shows, ``legends`` what the values of a label map on file mean, ``volumes`` turns arrays into
what NiiVue reads, ``resources`` is the fixed table of what may be asked for, ``server`` answers. The page itself is in
``assets``: no build step, no network.
"""

from abdoseg.viewer.resources import resources_of
from abdoseg.viewer.scene import Scene
from abdoseg.viewer.server import ViewerServer

__all__ = ["Scene", "ViewerServer", "resources_of"]
