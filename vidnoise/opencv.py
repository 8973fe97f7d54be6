"""OpenCV, from whichever of its packages is installed; without one, an error that says what to install.

All modules take it from here: ``from vidnoise.opencv import cv2``.
"""

from __future__ import annotations

from vidnoise.errors import DependencyError


def _what_helps(error: ImportError) -> str:
    """Return the message for a failed import of ``cv2``."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
        return "OpenCV is missing: pip install opencv-python (on a server without a display: opencv-python-headless)"
    if ".so" in str(error):  # opencv-python's windows need libGL.so.1, which servers and slim containers lack
        return (
            f"OpenCV cannot be loaded ({error}); without a display, take the one without windows: "
            "pip uninstall opencv-python, then pip install --force-reinstall --no-deps opencv-python-headless"
        )
    return (
        f"OpenCV cannot be loaded ({error}); install it again: pip install --force-reinstall --no-deps opencv-python "
        "(on a server without a display: opencv-python-headless)"
    )


try:
    import cv2 as cv2
except ImportError as ex:
    raise DependencyError(_what_helps(ex)) from ex
