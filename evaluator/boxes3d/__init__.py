"""Arithmetic of 3D box metrics in NumPy: tables of boxes, matching, precision and recall, errors of the matches."""
