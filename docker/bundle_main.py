"""First file that an edge bundle runs: unpacks the bundle once, and runs its tool.

Compiled packages can't be imported from a zip file, so the bundle is unpacked into a cache folder that is named for its
content. Written so that an old Python can read it far enough to say that it is too old.
"""

import json
import os
import platform
import shutil
import sys
import tempfile
import zipfile

EXIT_ENVIRONMENT_LACKS = 4


def _fail(message):
    sys.stderr.write("error: " + message + "\n")
    sys.exit(EXIT_ENVIRONMENT_LACKS)


def _cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("AWML_DEPLOY_CACHE") or os.path.join(base, "awml-deploy")


def _unpack(bundle, target):
    """Unpack next to ``target`` and rename: two processes that start at once don't see half a folder."""
    parent = os.path.dirname(target)
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=parent)
    except OSError as error:
        _fail("{}: can't unpack here ({}). Set AWML_DEPLOY_CACHE to a folder that you can write".format(parent, error))
    try:
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(temporary)
        os.rename(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # Another process may have been faster; its folder is the same.
        if not os.path.isdir(target):
            _fail("{}: can't unpack ({}). Free some space, or set AWML_DEPLOY_CACHE".format(target, error))


def main():
    """Run the tool of the bundle that this file is in."""
    bundle = os.path.dirname(os.path.abspath(__file__))
    with zipfile.ZipFile(bundle) as archive:
        about = json.loads(archive.read("bundle.json").decode())
    here = "{}.{}-{}".format(sys.version_info[0], sys.version_info[1], platform.machine())
    if here not in about["platforms"]:
        _fail(
            "{}: made for Python {}, and this is {}. Run it with such a Python, or make a bundle for this one: "
            "make bundle TOOL={} PLATFORMS={}".format(bundle, ", ".join(about["platforms"]), here, about["tool"], here)
        )
    folder = os.path.join(_cache_folder(), "bundles", about["tool"] + "-" + about["digest"][:16])
    if not os.path.isdir(folder):
        _unpack(bundle, folder)
    # The device's own packages (TensorRT) stay importable, behind ours.
    sys.path[0:1] = [os.path.join(folder, part) for part in ("app", "site/" + here, "site/common")]
    sys.argv[0] = about["tool"]
    module = about["tool"] + ".cli"
    if sys.argv[1:2] == ["manifest"]:
        sys.argv[0:2] = ["manifest"]
        module = "shared.manifest_cli"
    __import__(module)
    sys.modules[module].cli(prog_name=sys.argv[0])


if __name__ == "__main__":
    main()
