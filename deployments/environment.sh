#!/bin/sh
# `sh deployments/environment.sh [requirements-dev.lock]`: the virtual environment .venv holds what the lock lists.
# .venv/made-for says for which place and Python it was made, .venv/<lock> which packages are all there.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1
lock=${1:-requirements.lock} python=${PYTHON:-python3}
stop() { printf '%s\n' "$*" >&2; exit 1; }
last_line_of() { printf '%s\n' "$1" | sed -n '$s/\.*$//p'; }
trap 'echo "Interrupted: the same command goes on from here." >&2; exit 130' INT

version=$("$python" -E -c 'import sys; sys.stdout.write("%d.%d" % sys.version_info[:2])' 2> /dev/null) ||
    stop "$python is not installed or does not run: install Python 3.11 or newer."
if ! "$python" -E -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    remedy="install a newer one"
    for newer in python3.14 python3.13 python3.12 python3.11; do
        "$newer" -c '' 2> /dev/null && remedy="run \`make PYTHON=$newer\`" && break
    done
    stop "Python 3.11 or newer is needed and this is $version: $remedy."
fi

# Of pip's variables only those stay that say how to reach an index; any other could send the packages elsewhere.
for name in $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do
    case ${name#PIP_} in
        CACHE_DIR | CERT | CLIENT_CERT | CONFIG_FILE | DEFAULT_TIMEOUT | EXTRA_INDEX_URL | FIND_LINKS | INDEX_URL) ;;
        KEYRING_PROVIDER | NO_INDEX | PROXY | RETRIES | TRUSTED_HOST) ;;
        *) unset "$name" ;;
    esac
done

wanted="$(pwd) $("$python" -I -VV)"
if [ "$wanted" != "$(cat .venv/made-for 2> /dev/null)" ] || ! .venv/bin/python -I -c '' 2> /dev/null; then
    echo "Creating the virtual environment .venv with Python $version …"
    "$python" -I -c 'import ensurepip, venv' 2> /dev/null ||
        stop "Python cannot create a virtual environment: on Debian and Ubuntu, install the package python$version-venv."
    said=$("$python" -I -m venv --clear .venv 2>&1) && printf '%s\n' "$wanted" > .venv/made-for ||
        stop "Python cannot create a virtual environment ($(last_line_of "$said"))."
fi
# The command `backups` runs this checkout's code, from any directory and through any link.
backups='#!/bin/sh
self=$(readlink -f -- "$0")
exec "${self%/*}/python" -P -c "import os, sys
sys.path.insert(0, os.path.dirname(sys.prefix))
from deployments.command_line.main import main
sys.exit(main())" "$@"'
if [ "$backups" != "$(cat .venv/bin/backups 2> /dev/null)" ]; then
    printf '%s\n' "$backups" > .venv/bin/backups && chmod 755 .venv/bin/backups ||
        stop "The virtual environment .venv cannot be written."
fi
cmp -s "$lock" ".venv/$lock" && exit
echo "Installing the packages of $lock, which takes about a minute …"
said=$(.venv/bin/python -I -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock" 2>&1) ||
    stop "The packages could not be installed: check the network and the disk, then try again ($(last_line_of "$said"))."
# Prefect started from .venv finds this checkout's server, unless PREFECT_HOME says otherwise. Prefect makes its home, but
# not the folder around it.
home='import os, sys
if "PREFECT_HOME" not in os.environ:
    state = os.path.dirname(sys.prefix) + "/.state"
    os.environ["PREFECT_HOME"] = state + "/prefect"
    try:
        os.mkdir(state, 0o700)
    except OSError:
        pass'
for packages in .venv/lib/python3*/site-packages; do
    printf '%s\n' "$home" > "$packages/database_backup_system_home.py" &&
        echo "import database_backup_system_home" > "$packages/database_backup_system.pth" && cp "$lock" .venv/
done || stop "The virtual environment .venv cannot be written."
