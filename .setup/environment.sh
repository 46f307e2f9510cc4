# shellcheck shell=bash
# The virtual environment in .venv of the checkout. Sourced by install.sh; defines functions only.
# shellcheck disable=SC2154 # install.sh sets purpose and release

make_environment() { # a test environment also serves `run`
    local stamp
    # The checkout's own path counts: a virtual environment that was moved has scripts that point elsewhere.
    stamp=.venv/.made-$({ cat pyproject.toml .setup/environment.sh && pwd; } | sha256sum | cut -c1-12)
    if [ -x .venv/bin/python ] && [ -x .venv/bin/masu ]; then
        [ ! -e "$stamp-test" ] || return 0
        [ ! -e "$stamp-run" ] || [ "$purpose" = test ] || return 0
    fi
    find_python || install_packages python3 python3-venv
    find_python || die "no Python 3.11 or newer on PATH, and this distribution has none: install one, then run this again"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    say "making .venv with $("$python" --version)"
    fill_environment
    rm -f .venv/.made-*
    touch "$stamp-$purpose"
}

find_python() { # sets python
    local wanted='import sys; sys.exit(sys.version_info < (3, 11))'
    for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        "$python" -c "$wanted" 2>/dev/null && return 0
    done
    return 1
}

fill_environment() {
    local target=.
    [ "$purpose" = run ] || target='.[dev]'
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv ||
        die "$python cannot make a virtual environment: install its venv and ensurepip modules"
    .venv/bin/python -m pip install -qq --no-input --disable-pip-version-check -e "$target" ||
        die "pip could not install masu's Python packages: see its message above, then run this again"
    .venv/bin/python -m compileall -q controller
}
