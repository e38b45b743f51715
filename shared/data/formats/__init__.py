"""Data formats: a module or folder each, called as ``data.format`` names it, with what `FormatModule` says.

There is no list to add one to. Another package adds its own through the entry points ``awml_deploy.formats``.
"""
