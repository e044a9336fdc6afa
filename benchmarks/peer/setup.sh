#!/bin/sh
# Makes the environment of the peer: open_clip and its training command, apart from littune's own environment,
# because open_clip's training needs an older webdataset.
#
#   benchmarks/peer/setup.sh VENV [SITE_PACKAGES]
#
# With SITE_PACKAGES (littune's own) torch, timm and transformers are borrowed from there: no second download of
# torch, and both sides of the benchmark run the very same builds. Without it everything is installed afresh.
set -eu
venv=$1
borrowed=${2:-}
here=$(cd "$(dirname "$0")" && pwd)

"${PYTHON:-python3}" -m venv "$venv"
if [ -n "$borrowed" ]; then
    # These two first and alone: pip must not take the borrowed copies for installed ones.
    grep -E '^(open_clip_torch|webdataset)' "$here/requirements.txt" | sed 's/\[[a-z]*\]//' > "$venv/own.txt"
    "$venv/bin/pip" install --quiet --no-deps -r "$venv/own.txt"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # A .pth entry comes after the environment's own packages, so the two above win.
    (cd "$borrowed" && pwd) > "$site/borrowed.pth"
fi
"$venv/bin/pip" install --quiet -r "$here/requirements.txt"
"$venv/bin/python" -c '
import open_clip, torch, webdataset, open_clip_train.main
assert webdataset.__version__ == "0.2.86", webdataset.__version__
print("peer: open_clip", open_clip.__version__, "torch", torch.__version__)'
